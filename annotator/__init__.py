"""The annotator: a stream of samples goes in, label groups come out.

| file      | input                           | does                                           | output            |
|-----------|---------------------------------|------------------------------------------------|-------------------|
| weights   | a timm name, a checkpoint       | builds the network, loads safely, digests      | a `nn.Module`     |
| teacher   | `TeacherSettings`               | makes the network fully convolutional          | `Teacher`         |
| selftest  | a `Teacher`                     | proves that its cells mean something           | the map's size    |
| topk      | logits of cells                 | keeps the top K and the mass of the rest       | classes, scores   |
| plan      | shards, a store                 | skips what is done, indexes what is not        | rows to annotate  |
| decode    | rows to annotate                | reads, decodes and resizes in worker processes | batches of pixels |
| collect   | batches of maps                 | puts rows into their groups                    | `GroupLabels`     |
| status    | shards, a store                 | says which are done                            | `ShardStatus`     |
| annotate  | all of these                    | drives the teacher, commits finished groups    | `Summary`         |
| published | `.pt` maps, or a store          | imports and exports ReLabel's published files  | a store, or files |
"""
