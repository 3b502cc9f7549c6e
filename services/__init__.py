"""The five services of the city, one folder each, and the programs that see them all."""
