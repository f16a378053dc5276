"""The data card: statistics, plots, licences, the hub's metadata, and the page made of them."""
