"""Arithmetic on label maps, in numpy alone and without input or output.

| file       | input                 | does                                              | output                |
|------------|-----------------------|---------------------------------------------------|-----------------------|
| types      |                       | declares `LabelRow`, `LabelRows` and `Box`        |                       |
| regions    | an image's size, a box | the part that a map covers, boxes on the map     | `Box`                 |
| pooling    | one map, a crop's box | LabelPooling: pools the map over the box          | the crop's target     |
| notices    | figures of many maps  | what speaks against training with them            | sentences             |
| statistics | maps of many images   | pools each whole image; top-1 and present classes | figures of each image |
"""
