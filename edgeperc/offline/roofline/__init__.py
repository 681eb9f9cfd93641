"""How fast a network could be on a device, from its graph and the device's data sheet.

graph = counted(onnx.load(path))                          # operations and bytes of each layer
report = predict(graph, device("orin-agx"), bits_of("w8a8"))
print(report.bottleneck())

A roofline (Williams et al. 2009; of networks as in LLM-Viewer, arXiv 2402.16363): a layer takes as
long as its operations at the highest rate, or its bytes at the highest bandwidth, whichever is
longer. It bounds from below what can be measured, and is never shown as measured.
"""
