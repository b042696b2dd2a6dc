"""The tests; they mirror the folders of the code, and use it as installed: `from refold…`."""
