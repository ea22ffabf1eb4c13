// A CSI driver for tests on one machine: a volume is a folder, mounting it is a bind mount, and a
// snapshot is a copy. It says that it limits a volume's size, and does not.
//
// It registers itself with the kubelet. While a file `faults/CALL` lies in its folder, that call
// fails with the file's text, so that a test sees what then happens.
package main

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"log"
	"net"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	driverName = "folders.csi.gpudev.test"
	version    = "1"
	zoneKey    = "topology.kubernetes.io/zone"
)

func main() {
	root := flag.String("root", "", "folder of volumes and snapshots")
	socket := flag.String("socket", "", "where the driver listens")
	register := flag.String("registration", "", "where the kubelet asks who it is; empty: nowhere")
	name := flag.String("node", "", "name of the node")
	zone := flag.String("zone", "", "zone of the node")
	flag.Parse()
	store, err := openStore(*root)
	if err != nil {
		log.Fatal(err)
	}
	driver := grpc.NewServer(grpc.UnaryInterceptor(faults(filepath.Join(*root, "faults"))))
	csi.RegisterIdentityServer(driver, identity{})
	csi.RegisterControllerServer(driver, &controller{store: store, zone: *zone})
	csi.RegisterNodeServer(driver, &node{store: store, name: *name, zone: *zone})
	servers := []*grpc.Server{driver}
	serve(driver, *socket)
	if *register != "" {
		kubelet := grpc.NewServer()
		registration.RegisterRegistrationServer(kubelet, &registrar{endpoint: *socket})
		serve(kubelet, *register)
		servers = append(servers, kubelet)
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	<-ended
	for _, server := range servers {
		server.Stop()
	}
}

func serve(server *grpc.Server, socket string) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Fatal(err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		if err := server.Serve(listener); err != nil {
			log.Fatal(err)
		}
	}()
}

// faults answers calls with the errors that a test has asked for, and logs every call that fails.
func faults(folder string) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		call := path.Base(info.FullMethod)
		text, err := os.ReadFile(filepath.Join(folder, call))
		var answer any
		if err == nil {
			err = status.Error(codes.Unavailable, strings.TrimSpace(string(text)))
		} else {
			answer, err = handler(ctx, request)
		}
		if err != nil {
			log.Printf("%s: %v", call, err)
		}
		return answer, err
	}
}

type registrar struct {
	registration.UnimplementedRegistrationServer
	endpoint string
}

func (r *registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type:              registration.CSIPlugin,
		Name:              driverName,
		Endpoint:          r.endpoint,
		SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (r *registrar) NotifyRegistrationStatus(
	_ context.Context, told *registration.RegistrationStatus,
) (*registration.RegistrationStatusResponse, error) {
	if !told.PluginRegistered {
		log.Printf("the kubelet refused the driver: %s", told.Error)
	}
	return &registration.RegistrationStatusResponse{}, nil
}
