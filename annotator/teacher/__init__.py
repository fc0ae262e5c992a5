"""The teacher: a classifier made fully convolutional, which computes the label maps of images.

| file          | input               | does                                               | output            |
|---------------|---------------------|----------------------------------------------------|-------------------|
| weights       | a checkpoint        | loads it without running code; digests a network   | tensors, a digest |
| build         | a model's name      | builds a timm or a custom model                    | `nn.Module`       |
| source        | a custom model      | digests its source files                           | digests           |
| preprocessing | a network           | finds mean, deviation, size and interpolation      | `Preprocessing`   |
| classifier    | a network           | splits it in two parts: features and head          | `Classifier`      |
| topk          | logits of cells     | top K less the mean of the rest, and its tail      | classes, scores   |
| copies        | batches, label maps | copies them between host and device asynchronously | `AsyncMaps`       |
| teacher       | pixels              | applies the head at every cell                     | label maps        |
| selftest      | a `Teacher`         | checks that cells predict their part of the image  | `SelfTest`        |
"""
