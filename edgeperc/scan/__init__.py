"""The selective scan of Mamba on the CPU, and networks that contain it."""
