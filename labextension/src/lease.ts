// What this server's extension tells (gpudev_lab/panel.py). Times are ISO 8601.

export interface IReservation {
  id: string;
  name: string;
  user: string;
  gpu_type: string;
  gpus: number;
  nodes: number;
  disk: string | null;
  state: string;
  reason: string | null;
  starts_at: string | null;
  expires_at: string | null;
  placement: { node: string }[];
  extension: IExtensionOffer | null;
  idle: IIdleVerdict | null;
  notice: INotice | null;
  simulated: boolean;
}

/** What has happened to the server that its people should know of. */
export interface INotice {
  text: string;
  at: string;
}

export interface IExtensionOffer {
  possible_hours: number;
  extendable_until: string | null;
  limited_by: string | null;
}

export interface IIdleVerdict {
  state: 'in_use' | 'idle' | 'kept' | 'unknown';
  summary: string;
  reasons: string[];
  action: 'nothing' | 'warn' | 'release';
  keeps_left: number;
}

export type Role = 'use' | 'view';

export interface ICollaborator {
  user: string;
  role: Role;
  until: string | null;
}

export interface IGpuUse {
  name: string;
  used_percent: number | null;
  memory_used: number | null;
  memory_total: number | null;
}

export interface IPoint {
  at: number;
  used: number | null;
  memory: number;
}

export interface IGpuFigures {
  gpus: IGpuUse[];
  history: IPoint[];
  simulated: boolean;
  sampled_at: number | null;
  unavailable: string | null;
}

export interface ISnapshot {
  id: string;
  taken_at: string;
  state: 'taking' | 'ready' | 'failed';
  size_bytes: number | null;
  progress: string | null;
  note: string | null;
}

export interface IDisk {
  name: string;
  size_bytes: number | null;
  limit_bytes: number | null;
  snapshots: number;
}

export interface ILease {
  now: string;
  visitor: { name: string; owner: boolean };
  pages_url: string;
  reservation: IReservation | null;
  collaborators: ICollaborator[];
  disk: IDisk | null;
  snapshots: ISnapshot[];
  ssh: { host: string | null; folder: string } | null;
  gpu: IGpuFigures | null;
  save: { id: string; until: string } | null;
  away: string | null;
}
