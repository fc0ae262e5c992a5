"""The annotator: a stream of samples goes in, label groups come out.

| file                     | input                       | does                                    | output           |
|--------------------------|-----------------------------|-----------------------------------------|------------------|
| settings, split          | options, the environment    | what a run is told; which share is ours | `Job`, `Rank`    |
| weights                  | a checkpoint                | loads without running code, digests     | tensors          |
| timm_models, own_models  | a name                      | builds the network                      | a `nn.Module`    |
| classifier, view         | a network                   | takes it apart; how images are prepared | features, head   |
| topk                     | logits of cells             | keeps top K and the rest's mass (pure)  | classes, scores  |
| teacher, pending         | pixels                      | maps, while the next are on their way   | `AsyncMaps`    |
| selftest                 | a `Teacher`                 | proves that its cells mean something    | the map's size   |
| spool                    | shards, perhaps behind URLs | copies whole or not at all              | local files      |
| plan                     | shards, a store             | skips what is done, indexes the rest    | rows to annotate |
| decode                   | rows to annotate            | reads, decodes, resizes in processes    | batches          |
| collect, commit          | batches of maps             | fills groups, writes finished ones      | label groups     |
| report                   | what happens                | tells and sums it up                    | `Summary`        |
| annotate                 | all of these                | drives the teacher through shards       |                  |
| watch                    | patterns                    | finds shards as they appear             | complete shards  |
| actor, cluster           | shards, a Ray cluster       | the same by actors that may die         |                  |
| status                   | shards, a store             | says which are done                     | `ShardStatus`    |
| published                | `.pt` maps, or a store      | imports and exports published files     | a store or files |
"""
