"""Files that run on the target: the ONNX file, the packed weights, their verification."""
