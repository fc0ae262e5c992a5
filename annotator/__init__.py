"""The annotator: image shards and a teacher in, label groups out.

| file         | input                  | does                                        | output           |
|--------------|------------------------|---------------------------------------------|------------------|
| settings     | options of a command   | checks them                                 | `Job`            |
| teacher/     | a timm or custom model | computes label maps of images; self-test    | `Teacher`        |
| input/plan   | shards, a store        | skips finished shards, indexes the others   | rows to annotate |
| input/decode | rows to annotate       | reads, decodes, resizes in worker processes | batches          |
| run/         | batches, a teacher     | fills and commits groups; drivers of runs   | label groups     |
| report       | events of a run        | passes them on and adds them up             | `Summary`        |
| published/   | `.pt` maps, or a store | imports and exports published label maps    | a store or files |
"""
