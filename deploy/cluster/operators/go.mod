// The operators that the chart supports, whose CRDs its tests use. Not a program: vesta_cluster.operators downloads these modules.
module vesta.example/operators

go 1.26.0

require (
	github.com/cert-manager/cert-manager v1.21.2
	github.com/kedacore/keda/v2 v2.21.0
	github.com/prometheus-operator/prometheus-operator v0.85.0
	sigs.k8s.io/gateway-api v1.6.3
	sigs.k8s.io/kueue v0.17.0
)
