"""The command `relabel-store`: open a store, call the library, print.

| file        | does                                                                     |
|-------------|--------------------------------------------------------------------------|
| main        | the group of subcommands                                                 |
| base        | errors as one line and exit status 1, for all commands of the project    |
| options     | arguments, options and output that several commands share                |
| show        | `show` and `ls`: a store, its groups, one image's label map              |
| audit       | `audit`: wrong labels and statistics to terminal, JSON, CSV, page, index |
| browse      | `browse`: serves a store's pages                                         |
| maintain    | `verify`, `gc`, `merge`                                                  |
| progress    | progress bars                                                            |
| terminal    | output that outlives its terminal                                        |
"""
