"""Finding wrong labels: what the label maps of a store say against the original labels of its images.

| file             | input               | does                                                        |
|------------------|---------------------|-------------------------------------------------------------|
| maps, group      | label maps          | figures of each image                                       |
| findings, lists  | figures of a group  | sums and lists over the whole store                         |
| summary, render  | what was found      | words and tables for the terminal                           |
| page             | what was found      | a page; needs the extra `web`                               |
| files, index     | figures of a group  | a CSV; the file that `browse` sorts by                      |
| command          |                     | `relabel-store audit`                                       |
"""
