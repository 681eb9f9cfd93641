"""The wire format: .proto files, the stubs made of them, and results to messages and back."""
