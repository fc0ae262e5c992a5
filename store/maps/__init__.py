"""Arithmetic on label maps, in numpy alone and without input or output.

| file       | input                 | does                                              | output                |
|------------|-----------------------|---------------------------------------------------|-----------------------|
| types      |                       | declares `LabelRow`, `LabelRows`, `Box`, `Fill`   |                       |
| pooling    | one map, a crop's box | LabelPooling: pools the map over the box          | the crop's target     |
| statistics | maps of many images   | pools each whole image; top-1 and present classes | figures of each image |
"""
