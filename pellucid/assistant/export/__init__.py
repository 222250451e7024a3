"""A model taken out to other tools: GGUF for llama.cpp, ONNX for ONNX Runtime; each file is read again and compared."""
