package main

import (
	"context"
	"strconv"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// smallest is what a volume gets for which no size was asked.
const smallest = 1 << 20

type controller struct {
	csi.UnimplementedControllerServer
	store *store
	zone  string
}

var abilities = []csi.ControllerServiceCapability_RPC_Type{
	csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
	csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
	csi.ControllerServiceCapability_RPC_GET_CAPACITY,
	csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
	csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
	csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
	csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
	csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
}

func (c *controller) ControllerGetCapabilities(
	context.Context, *csi.ControllerGetCapabilitiesRequest,
) (*csi.ControllerGetCapabilitiesResponse, error) {
	answer := &csi.ControllerGetCapabilitiesResponse{}
	for _, ability := range abilities {
		answer.Capabilities = append(answer.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{
				Rpc: &csi.ControllerServiceCapability_RPC{Type: ability},
			},
		})
	}
	return answer, nil
}

func (c *controller) CreateVolume(
	_ context.Context, r *csi.CreateVolumeRequest,
) (*csi.CreateVolumeResponse, error) {
	if r.Name == "" {
		return nil, status.Error(codes.InvalidArgument, "a volume needs a name")
	}
	if err := check(r.VolumeCapabilities); err != nil {
		return nil, err
	}
	c.store.lock.Lock()
	defer c.store.lock.Unlock()
	id := idOf(volumes, r.Name)
	found, err := c.store.find(volumes, id)
	if err != nil {
		return nil, err
	}
	from, source, least, err := c.source(r.VolumeContentSource)
	if err != nil {
		return nil, err
	}
	size, limit := max(r.CapacityRange.GetRequiredBytes(), least, smallest), r.CapacityRange.GetLimitBytes()
	if limit > 0 && size > limit {
		return nil, status.Errorf(codes.OutOfRange, "at least %d bytes are needed", size)
	}
	if found == nil {
		found = &entry{
			ID: id, Name: r.Name, Bytes: size, Source: source, Created: time.Now().UTC(),
			Zone: c.zoneFor(r.AccessibilityRequirements),
		}
		if err := c.store.add(volumes, found, from); err != nil {
			return nil, err
		}
	} else if found.Bytes < size || limit > 0 && found.Bytes > limit || found.Source != source {
		return nil, status.Errorf(codes.AlreadyExists, "%s is there, with another size or source", r.Name)
	}
	made := volumeOf(found)
	made.ContentSource = r.VolumeContentSource
	return &csi.CreateVolumeResponse{Volume: made}, nil
}

// source is the folder that a new volume begins with, its name for us, and the least size.
func (c *controller) source(wanted *csi.VolumeContentSource) (string, string, int64, error) {
	kind, id := snapshots, wanted.GetSnapshot().GetSnapshotId()
	switch {
	case wanted == nil:
		return "", "", 0, nil
	case wanted.GetVolume() != nil:
		kind, id = volumes, wanted.GetVolume().GetVolumeId()
	}
	found, err := c.store.find(kind, id)
	if err != nil {
		return "", "", 0, err
	}
	if found == nil {
		return "", "", 0, status.Errorf(codes.NotFound, "there is no %s in %s", id, kind)
	}
	return c.store.data(kind, id), kind + "/" + id, found.Bytes, nil
}

func (c *controller) zoneFor(wanted *csi.TopologyRequirement) string {
	for _, place := range append(wanted.GetPreferred(), wanted.GetRequisite()...) {
		if zone := place.Segments[zoneKey]; zone != "" {
			return zone
		}
	}
	return c.zone
}

func (c *controller) DeleteVolume(
	_ context.Context, r *csi.DeleteVolumeRequest,
) (*csi.DeleteVolumeResponse, error) {
	if r.VolumeId == "" {
		return nil, status.Error(codes.InvalidArgument, "which volume?")
	}
	c.store.lock.Lock()
	defer c.store.lock.Unlock()
	return &csi.DeleteVolumeResponse{}, c.store.remove(volumes, r.VolumeId)
}

func (c *controller) ValidateVolumeCapabilities(
	_ context.Context, r *csi.ValidateVolumeCapabilitiesRequest,
) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if _, err := c.volume(r.VolumeId); err != nil {
		return nil, err
	}
	if len(r.VolumeCapabilities) == 0 {
		return nil, status.Error(codes.InvalidArgument, "which capabilities?")
	}
	if err := check(r.VolumeCapabilities); err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{
		Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
			VolumeContext: r.VolumeContext, VolumeCapabilities: r.VolumeCapabilities, Parameters: r.Parameters,
		},
	}, nil
}

func (c *controller) ListVolumes(
	_ context.Context, r *csi.ListVolumesRequest,
) (*csi.ListVolumesResponse, error) {
	all, err := c.store.list(volumes)
	if err != nil {
		return nil, err
	}
	shown, next, err := page(all, r.StartingToken, r.MaxEntries)
	answer := &csi.ListVolumesResponse{NextToken: next}
	for _, one := range shown {
		answer.Entries = append(answer.Entries, &csi.ListVolumesResponse_Entry{Volume: volumeOf(one)})
	}
	return answer, err
}

func (c *controller) GetCapacity(
	context.Context, *csi.GetCapacityRequest,
) (*csi.GetCapacityResponse, error) {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(c.store.root, &disk); err != nil {
		return nil, err
	}
	return &csi.GetCapacityResponse{AvailableCapacity: int64(disk.Bavail) * disk.Bsize}, nil
}

func (c *controller) ControllerExpandVolume(
	_ context.Context, r *csi.ControllerExpandVolumeRequest,
) (*csi.ControllerExpandVolumeResponse, error) {
	c.store.lock.Lock()
	defer c.store.lock.Unlock()
	found, err := c.volume(r.VolumeId)
	if err != nil {
		return nil, err
	}
	if r.CapacityRange == nil {
		return nil, status.Error(codes.InvalidArgument, "how large?")
	}
	if limit := r.CapacityRange.LimitBytes; limit > 0 && r.CapacityRange.RequiredBytes > limit {
		return nil, status.Error(codes.OutOfRange, "more is required than allowed")
	}
	if r.CapacityRange.RequiredBytes > found.Bytes {
		found.Bytes = r.CapacityRange.RequiredBytes
		if err := c.store.change(volumes, found); err != nil {
			return nil, err
		}
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: found.Bytes}, nil
}

func (c *controller) CreateSnapshot(
	_ context.Context, r *csi.CreateSnapshotRequest,
) (*csi.CreateSnapshotResponse, error) {
	if r.Name == "" || r.SourceVolumeId == "" {
		return nil, status.Error(codes.InvalidArgument, "a snapshot needs a name and a volume")
	}
	c.store.lock.Lock()
	defer c.store.lock.Unlock()
	id := idOf(snapshots, r.Name)
	found, err := c.store.find(snapshots, id)
	if err != nil {
		return nil, err
	}
	if found == nil {
		volume, err := c.volume(r.SourceVolumeId)
		if err != nil {
			return nil, err
		}
		found = &entry{
			ID: id, Name: r.Name, Bytes: volume.Bytes, Source: volume.ID, Created: time.Now().UTC(),
		}
		if err := c.store.add(snapshots, found, c.store.data(volumes, volume.ID)); err != nil {
			return nil, err
		}
	} else if found.Source != r.SourceVolumeId {
		return nil, status.Errorf(codes.AlreadyExists, "%s is a snapshot of another volume", r.Name)
	}
	return &csi.CreateSnapshotResponse{Snapshot: snapshotOf(found)}, nil
}

func (c *controller) DeleteSnapshot(
	_ context.Context, r *csi.DeleteSnapshotRequest,
) (*csi.DeleteSnapshotResponse, error) {
	if r.SnapshotId == "" {
		return nil, status.Error(codes.InvalidArgument, "which snapshot?")
	}
	c.store.lock.Lock()
	defer c.store.lock.Unlock()
	return &csi.DeleteSnapshotResponse{}, c.store.remove(snapshots, r.SnapshotId)
}

func (c *controller) ListSnapshots(
	_ context.Context, r *csi.ListSnapshotsRequest,
) (*csi.ListSnapshotsResponse, error) {
	all, err := c.store.list(snapshots)
	if err != nil {
		return nil, err
	}
	var wanted []*entry
	for _, one := range all {
		if (r.SnapshotId == "" || one.ID == r.SnapshotId) &&
			(r.SourceVolumeId == "" || one.Source == r.SourceVolumeId) {
			wanted = append(wanted, one)
		}
	}
	shown, next, err := page(wanted, r.StartingToken, r.MaxEntries)
	answer := &csi.ListSnapshotsResponse{NextToken: next}
	for _, one := range shown {
		answer.Entries = append(answer.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: snapshotOf(one)})
	}
	return answer, err
}

func (c *controller) volume(id string) (*entry, error) {
	if id == "" {
		return nil, status.Error(codes.InvalidArgument, "which volume?")
	}
	found, err := c.store.find(volumes, id)
	if err == nil && found == nil {
		err = status.Errorf(codes.NotFound, "there is no volume %s", id)
	}
	return found, err
}

// check refuses what a folder cannot be.
func check(wanted []*csi.VolumeCapability) error {
	if len(wanted) == 0 {
		return status.Error(codes.InvalidArgument, "a volume needs capabilities")
	}
	for _, one := range wanted {
		if one.GetBlock() != nil {
			return status.Error(codes.InvalidArgument, "a folder is no block device")
		}
	}
	return nil
}

func page(all []*entry, token string, most int32) ([]*entry, string, error) {
	if most < 0 {
		return nil, "", status.Error(codes.InvalidArgument, "fewer than none cannot be listed")
	}
	start := 0
	if token != "" {
		parsed, err := strconv.Atoi(token)
		if err != nil || parsed < 0 || parsed > len(all) {
			return nil, "", status.Errorf(codes.Aborted, "the token %q is not one of ours", token)
		}
		start = parsed
	}
	if most == 0 || start+int(most) >= len(all) {
		return all[start:], "", nil
	}
	end := start + int(most)
	return all[start:end], strconv.Itoa(end), nil
}

func volumeOf(one *entry) *csi.Volume {
	made := &csi.Volume{VolumeId: one.ID, CapacityBytes: one.Bytes}
	if one.Zone != "" {
		made.AccessibleTopology = []*csi.Topology{{Segments: map[string]string{zoneKey: one.Zone}}}
	}
	return made
}

func snapshotOf(one *entry) *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId: one.ID, SourceVolumeId: one.Source, SizeBytes: one.Bytes,
		CreationTime: timestamppb.New(one.Created), ReadyToUse: true,
	}
}
