"""Lifeboat: disaster recovery of servers across availability zones, declared in Kubernetes."""
