"""The language model, loaded, asked and scored in one way by data, train, evaluate and serve."""
