// How the same place is reached by SSH and by editors. Pure.

import type { ILease } from './lease';


/** One word for a shell: ids and hosts are plain, and everything else is quoted. */
export function quoted(word: string): string {
  return /^[A-Za-z0-9._/@:-]+$/.test(word) ? word : `'${word.replace(/'/g, `'\\''`)}'`;
}

/** The name by which SSH knows the server, once `gpu-dev ssh-config` is set up. */
export function host(lease: ILease): string {
  return lease.ssh?.host ?? `gpudev-${lease.reservation?.id ?? ''}`;
}

/** A link that opens the home directory in an editor that knows VS Code's remote links. */
export function editorLink(scheme: 'vscode' | 'cursor', lease: ILease): string {
  const folder = (lease.ssh?.folder ?? '/').split('/').map(encodeURIComponent).join('/');
  return `${scheme}://vscode-remote/ssh-remote+${encodeURIComponent(host(lease))}${folder}?windowId=_blank`;
}

/** What can be typed, in this order. */
export function commands(lease: ILease): { connect: string; config: string; ssh: string } {
  return {
    connect: `gpu-dev connect ${quoted(lease.reservation?.id ?? '')}`,
    config: 'gpu-dev ssh-config',
    ssh: `ssh ${quoted(host(lease))}`
  };
}
