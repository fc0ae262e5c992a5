"""How a store is shown: as plain values, in the terminal, as a picture, as a page.

| file                              | input                | does                                                    |
|-----------------------------------|----------------------|---------------------------------------------------------|
| describe, row, target             | a store, a row       | plain values, ready for JSON or for drawing             |
| photos                            | image shards         | a row's image, proven to be the one that was annotated  |
| tables, render, render_row, blocks | plain values         | the terminal's pictures                                 |
| figure                            | a row and its image  | a PNG; needs the extra `view`                           |
| html, page, templates/            | a row and its image  | a page that needs nothing but itself; extra `web`       |
| commands, show_row, progress      |                      | `relabel-store show`                                    |
"""
