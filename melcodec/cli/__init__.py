"""The command line: it translates words and prints; the library works. stdout is data, stderr is talk."""
