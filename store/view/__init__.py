"""How a store is shown: `describe` turns it into plain values, `render` turns those into terminal pictures."""
