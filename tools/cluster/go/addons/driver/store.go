package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"sync"
	"time"
)

// entry is a volume or a snapshot; it lies beside its data.
type entry struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Bytes   int64     `json:"bytes"`
	Source  string    `json:"source"`
	Zone    string    `json:"zone"`
	Created time.Time `json:"created"`
	// Where the volume is mounted, or was until the machine or the driver fell over.
	Targets []string `json:"targets"`
}

// store keeps volumes and snapshots in folders. Each is made under another name and renamed when it
// is whole, so a driver that is killed leaves nothing half.
type store struct {
	root string
	lock sync.Mutex
}

const (
	volumes   = "volumes"
	snapshots = "snapshots"
	drafts    = "drafts"
)

func openStore(root string) (*store, error) {
	if err := os.RemoveAll(filepath.Join(root, drafts)); err != nil {
		return nil, err
	}
	for _, kind := range []string{volumes, snapshots, drafts, "faults"} {
		if err := os.MkdirAll(filepath.Join(root, kind), 0o711); err != nil {
			return nil, err
		}
	}
	return &store{root: root}, nil
}

// idOf is the id of what is asked for by this name: the same each time.
func idOf(kind, name string) string {
	digest := sha256.Sum256([]byte(name))
	return kind[:4] + "-" + hex.EncodeToString(digest[:12])
}

func (s *store) data(kind, id string) string {
	return filepath.Join(s.root, kind, id, "data")
}

// find returns the entry with this id; nil where there is none.
func (s *store) find(kind, id string) (*entry, error) {
	if id != filepath.Base(id) {
		return nil, nil
	}
	text, err := os.ReadFile(filepath.Join(s.root, kind, id, "entry.json"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrInvalid) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found := &entry{}
	return found, json.Unmarshal(text, found)
}

// add makes the entry, with a copy of what lies in the folder `from`, or empty.
func (s *store) add(kind string, made *entry, from string) error {
	draft := filepath.Join(s.root, drafts, made.ID)
	if err := os.RemoveAll(draft); err != nil {
		return err
	}
	data := filepath.Join(draft, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	// A user of a pod without fsGroup writes there too, as on a disk of a cloud that was formatted so.
	if err := os.Chmod(data, 0o777); err != nil {
		return err
	}
	if from != "" {
		output, err := exec.Command("cp", "-a", "--reflink=auto", from+"/.", data).CombinedOutput()
		if err != nil {
			return fmt.Errorf("copying %s: %w: %s", from, err, output)
		}
	}
	if err := write(draft, made); err != nil {
		return err
	}
	return os.Rename(draft, filepath.Join(s.root, kind, made.ID))
}

func (s *store) change(kind string, changed *entry) error {
	return write(filepath.Join(s.root, kind, changed.ID), changed)
}

func (s *store) remove(kind, id string) error {
	if id != filepath.Base(id) {
		return nil
	}
	return os.RemoveAll(filepath.Join(s.root, kind, id))
}

// list returns all entries in the order of their ids.
func (s *store) list(kind string) ([]*entry, error) {
	folders, err := os.ReadDir(filepath.Join(s.root, kind))
	if err != nil {
		return nil, err
	}
	var found []*entry
	for _, folder := range folders {
		one, err := s.find(kind, folder.Name())
		if err != nil {
			return nil, err
		}
		if one != nil {
			found = append(found, one)
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].ID < found[j].ID })
	return found, nil
}

func write(folder string, one *entry) error {
	text, err := json.Marshal(one)
	if err != nil {
		return err
	}
	draft := filepath.Join(folder, "entry.new")
	if err := os.WriteFile(draft, text, 0o600); err != nil {
		return err
	}
	return os.Rename(draft, filepath.Join(folder, "entry.json"))
}
