"""The admission webhook that puts a daemon beside agents in Kubernetes."""
