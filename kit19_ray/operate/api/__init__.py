"""The KitRun: spec, status, CRD, and the rights the operator needs."""
