import { Token } from '@lumino/coreutils';
import type { ISignal } from '@lumino/signaling';

import type { ILease, Role } from './lease';

/** The lease of this server, for other extensions. */
export const ILeaseModel = new Token<ILeaseModel>(
  'gpudev-lab:ILeaseModel',
  'The lease that this server runs on: what is known of it, and what can be done.'
);

export interface ILeaseModel {
  /** What is known; null until the server has answered for the first time. */
  readonly lease: ILease | null;
  /** A sentence that says why what is shown may be old; null when all is well. */
  readonly trouble: string | null;
  /** Now, by the server's clock. */
  readonly now: Date;
  /** Emitted when anything of the above is new. */
  readonly changed: ISignal<ILeaseModel, void>;
  /** Asks the server anew. */
  refresh(): Promise<void>;
  /** These reject with an Error whose message is a sentence for a person. */
  extend(hours: number): Promise<void>;
  /** `hours` from now, or as long as the lease. */
  invite(user: string, role: Role, hours: number | null): Promise<void>;
  remove(user: string): Promise<void>;
  snapshot(): Promise<void>;
  keep(): Promise<void>;
  release(): Promise<void>;
}
