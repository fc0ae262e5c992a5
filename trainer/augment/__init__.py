"""Crops for custom loops; augments batches and their targets on the device.

| file          | input                | does                                  | output          |
|---------------|----------------------|---------------------------------------|-----------------|
| crop_with_box | an image             | crops at random, as torchvision's v2  | the crop, a box |
| colour        | pixels in [0, 1]     | colour jitter and PCA lighting (pure) | pixels          |
| mixing        | images, soft targets | CutMix and mixup (pure)               | the same, mixed |
| augment       | crops, targets       | flips, colours, normalisation, mixing | images, targets |
"""
