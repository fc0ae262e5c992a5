"""Viewing a store: as plain values, in the terminal, as a picture, as an HTML page, in a notebook.

| file             | input               | does                                       | output             |
|------------------|---------------------|--------------------------------------------|--------------------|
| describe         | a store, group, row | collects what is shown                     | plain values       |
| images           | image shards, a row | reads the row's image, checks its digest   | bytes              |
| marks            | classes             | names them, gives them letters and colours | texts, `Marks`     |
| terminal         | plain values        | draws tables, the map, the image           | rich's renderables |
| figure           | a row and its image | draws the map over the image; extra `view` | a PNG              |
| page, templates/ | a row and its image | writes a self-contained page; extra `web`  | HTML               |
| row              | a store, a key      | finds the row and its image, for a command | all of the above   |
| notebook         | a store, a row      | displays them in a notebook                | HTML               |
"""
