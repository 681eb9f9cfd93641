"""Networks on onnxruntime: sessions, what runs them, and the engines that are kept for them."""
