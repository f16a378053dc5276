"""Export -> scores: lm-evaluation-harness as the judge, the model behind it spread over Ray actors."""
