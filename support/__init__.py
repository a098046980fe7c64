"""The ground floor: files, locks, arrays on disk, paths, errors. It imports nothing else of jcdnet."""
