package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type node struct {
	csi.UnimplementedNodeServer
	store      *store
	name, zone string
}

func (n *node) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	answer := &csi.NodeGetInfoResponse{NodeId: n.name}
	if n.zone != "" {
		answer.AccessibleTopology = &csi.Topology{Segments: map[string]string{zoneKey: n.zone}}
	}
	return answer, nil
}

func (n *node) NodeGetCapabilities(
	context.Context, *csi.NodeGetCapabilitiesRequest,
) (*csi.NodeGetCapabilitiesResponse, error) {
	answer := &csi.NodeGetCapabilitiesResponse{}
	for _, ability := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		answer.Capabilities = append(answer.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: ability}},
		})
	}
	return answer, nil
}

func (n *node) NodePublishVolume(
	_ context.Context, r *csi.NodePublishVolumeRequest,
) (*csi.NodePublishVolumeResponse, error) {
	if r.VolumeId == "" || r.TargetPath == "" || r.VolumeCapability == nil {
		return nil, status.Error(codes.InvalidArgument, "a volume, a capability and a path are needed")
	}
	if err := check([]*csi.VolumeCapability{r.VolumeCapability}); err != nil {
		return nil, err
	}
	n.store.lock.Lock()
	defer n.store.lock.Unlock()
	found, err := n.store.find(volumes, r.VolumeId)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, status.Errorf(codes.NotFound, "there is no volume %s", r.VolumeId)
	}
	if err := n.claim(found, r); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.TargetPath, 0o750); err != nil {
		return nil, err
	}
	data := n.store.data(volumes, r.VolumeId)
	if same, err := sameFolder(data, r.TargetPath); err != nil || same {
		return &csi.NodePublishVolumeResponse{}, err // mounted before
	}
	if err := syscall.Mount(data, r.TargetPath, "", syscall.MS_BIND, ""); err != nil {
		return nil, err
	}
	if r.Readonly {
		flags := uintptr(syscall.MS_BIND | syscall.MS_REMOUNT | syscall.MS_RDONLY)
		if err := syscall.Mount("", r.TargetPath, "", flags, ""); err != nil {
			return nil, err
		}
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

// claim notes the target, and refuses one beside another where the volume is for one pod alone.
func (n *node) claim(volume *entry, r *csi.NodePublishVolumeRequest) error {
	alone := r.VolumeCapability.GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	kept := []string{r.TargetPath}
	for _, target := range volume.Targets {
		same, err := sameFolder(n.store.data(volumes, volume.ID), target)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if same && target != r.TargetPath {
			kept = append(kept, target)
		}
	}
	if alone && len(kept) > 1 {
		return status.Errorf(codes.FailedPrecondition, "%s is in use at %s", volume.ID, kept[1])
	}
	volume.Targets = kept
	return n.store.change(volumes, volume)
}

func (n *node) NodeUnpublishVolume(
	_ context.Context, r *csi.NodeUnpublishVolumeRequest,
) (*csi.NodeUnpublishVolumeResponse, error) {
	if r.VolumeId == "" || r.TargetPath == "" {
		return nil, status.Error(codes.InvalidArgument, "a volume and a path are needed")
	}
	n.store.lock.Lock()
	defer n.store.lock.Unlock()
	// EINVAL: nothing is mounted there.
	err := syscall.Unmount(r.TargetPath, 0)
	if err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// Not RemoveAll: should the mount still be there after all, the data would go.
	if err := os.Remove(r.TargetPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (n *node) NodeGetVolumeStats(
	_ context.Context, r *csi.NodeGetVolumeStatsRequest,
) (*csi.NodeGetVolumeStatsResponse, error) {
	if r.VolumeId == "" || r.VolumePath == "" {
		return nil, status.Error(codes.InvalidArgument, "a volume and a path are needed")
	}
	found, err := n.store.find(volumes, r.VolumeId)
	if err != nil {
		return nil, err
	}
	var disk syscall.Statfs_t
	if found == nil || errors.Is(syscall.Statfs(r.VolumePath, &disk), fs.ErrNotExist) {
		return nil, status.Errorf(codes.NotFound, "%s is not at %s", r.VolumeId, r.VolumePath)
	}
	free := int64(disk.Bavail) * disk.Bsize
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{{
		Unit: csi.VolumeUsage_BYTES, Total: found.Bytes, Available: min(free, found.Bytes),
	}}}, nil
}

func sameFolder(one, other string) (bool, error) {
	first, err := os.Stat(one)
	if err != nil {
		return false, err
	}
	second, err := os.Stat(other)
	if err != nil {
		return false, err
	}
	return os.SameFile(first, second), nil
}
