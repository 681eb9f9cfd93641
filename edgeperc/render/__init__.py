"""What people look at: results drawn over pictures, as videos and in the terminal."""
