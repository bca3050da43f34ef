"""What speech there is: folders, lists and archives read as utterances."""
