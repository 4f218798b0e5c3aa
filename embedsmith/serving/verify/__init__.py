"""Does another program compute the vectors of a model? If not, which of the usual mistakes does it make?"""
