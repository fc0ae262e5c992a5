"""The label store: a Zarr v3 group with one label group per image shard, on a disk or in a bucket.

| file or folder | input                     | does                                                          |
|----------------|---------------------------|---------------------------------------------------------------|
| errors, text   | errors, names, values     | all errors raised on purpose; their text as one line          |
| foreign        | other libraries' errors   | recognises them by their text, where nothing else tells       |
| limits         | the system's limits       | open files and memory: what has run out, as one line          |
| files          | local paths               | atomic writing, locks, syncing                                |
| scratch        | a folder such as TMPDIR   | temporary folders; removes those of killed processes          |
| signals        | SIGTERM, SIGHUP           | let `finally` blocks run before the process ends              |
| processes      | work                      | starts and ends worker processes (`fork_server`: quietly)     |
| storage/       | a path or a URL           | reads, lists and commits objects of a folder or a bucket      |
| shards/        | image shards              | reads WebDataset tars, indexes samples, decodes images        |
| format/        | JSON attributes, arrays   | parses, encodes and checks what is stored                     |
| maps/          | label maps                | pooling and statistics in numpy                               |
| objects        | a commit record           | reads a group's objects and compares them with the record     |
| reader, group  | a store                   | `LabelStore`, `LabelGroup`: groups, rows, lookup by key       |
| writer         | label maps                | `StoreWriter`: creates a store, commits groups                |
| maintenance    | a store                   | verifies, removes leftovers, merges                           |
| view/          | label maps and images     | terminal, picture and page of one row                         |
| audit/         | label maps and labels     | findings on wrong labels: tables, page, index                 |
| browse/        | label maps, images, index | serves the pages of a whole store                             |
| cli/           | a command line            | the command `relabel-store`                                   |

A *leftover* is an attempt of a killed writer, or a group that was replaced; no reader sees it.
"""
