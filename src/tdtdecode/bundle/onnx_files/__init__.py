"""ONNX files of a model directory: parsing them, checking them before they are used, and following their tensors."""
