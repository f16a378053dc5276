"""`kit19 fetch`: the published original files, brought to where the data stage reads them.

1. `plan.items(config, names)` gives what is wanted: target, URL, size, hash.
2. `present.states(items)` finds out what is there already.
3. `consent.ask(...)` shows the licences and asks.
4. `download.download(...)` brings one URL's bytes into a `partial.Partial`, going on where an earlier run stopped.
5. `stage.run(...)` does it for all of them at once and writes each file under its name when it is known to be whole.
"""
