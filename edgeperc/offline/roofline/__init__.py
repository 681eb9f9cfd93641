"""How fast a network could be on a device, from its graph and the device's data sheet.

graph = count(shaped(onnx.load(path)))                    # operations and bytes of each layer
report = predict(graph, device("orin-agx"), bits_of("w8a8"))
print(report.bottleneck())

A roofline (Williams et al. 2009; of networks as in LLM-Viewer, arXiv 2402.16363): a layer takes as
long as its operations at the highest rate, or its bytes at the highest bandwidth, whichever is
longer. That bounds from below what a runtime can do that goes layer by layer through memory; one
that fuses attention, or keeps small tensors in a cache, can be faster. Never shown as measured.
"""
