// The enforcer of NetworkPolicies on the node: the engine of kube-network-policies, to which the node's
// packet filter hands the first packet of each connection from or to a pod.
//
// The rules that hand them over are the cluster's own (parts.sh): those that the engine would make need
// an expression of nftables which not every kernel has. It says once that it cannot make them, and goes on.
package main

import (
	"context"
	"flag"
	"os/signal"
	"syscall"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
)

func main() {
	klog.InitFlags(nil)
	kubeconfig := flag.String("kubeconfig", "", "how to reach the API server")
	node := flag.String("node", "", "the node's name")
	queue := flag.Int("queue", 100, "the number of the NFQUEUE")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		klog.Fatalf("cannot read the kubeconfig: %v", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		klog.Fatalf("cannot make a client: %v", err)
	}
	// Its plugin of the container runtime stays on, although there is nothing here that it could plug into, which it
	// says once: without it, the engine falls over an address that is no pod's.
	shared := informers.NewSharedInformerFactory(client, 0)
	controller, err := networkpolicy.NewController(client,
		shared.Networking().V1().NetworkPolicies(), shared.Core().V1().Namespaces(), shared.Core().V1().Pods(),
		nil, nil, nil, nil,
		networkpolicy.Config{QueueID: *queue, NodeName: *node},
	)
	if err != nil {
		klog.Fatalf("cannot make the controller: %v", err)
	}
	shared.Start(ctx.Done())
	if err := controller.Run(ctx); err != nil {
		klog.Fatalf("the controller ended: %v", err)
	}
}
