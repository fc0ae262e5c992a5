"""The label store: a Zarr v3 group with one label group per image shard, on a disk or in a bucket.

| file or folder | input                     | does                                                          |
|----------------|---------------------------|---------------------------------------------------------------|
| errors, text   | errors, names, values     | all errors raised on purpose; their text as one line          |
| foreign        | other libraries' errors   | recognises them by their text, where nothing else tells       |
| files          | local paths               | atomic writing, locks, syncing                                |
| system/        | the operating system      | signals, open files, scratch folders, worker processes        |
| storage/       | a path or a URL           | reads, lists and commits objects of a folder or a bucket      |
| shards/        | image shards              | reads WebDataset tars, indexes samples, decodes images        |
| format/        | JSON attributes, arrays   | parses, encodes and checks what is stored                     |
| maps/          | label maps                | pooling and statistics in numpy                               |
| archives       | a checkpoint              | says what is wrong with it, before it is loaded               |
| objects, rows  | a commit record           | read a group's objects and arrays, compared with the record   |
| reader, group  | a store                   | `LabelStore`, `LabelGroup`: groups, rows, lookup by key       |
| writer         | label maps                | `StoreWriter`: creates a store, commits groups                |
| maintenance    | a store                   | verifies, removes leftovers, merges                           |
| view/          | label maps and images     | terminal, picture and page of one row                         |
| audit/         | label maps and labels     | findings on wrong labels: tables, page, index                 |
| browse/        | label maps, images, index | serves the pages of a whole store                             |
| cli/           | a command line            | the command `relabel-store`                                   |

A *leftover* is an attempt of a killed writer, or a group that was replaced; no reader sees it.
"""
