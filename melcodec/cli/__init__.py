"""The command line: it reads options, calls the library and prints. stdout is data, stderr is talk."""
