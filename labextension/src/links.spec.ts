import type { ILease } from './lease';
import { commands, editorLink, quoted } from './links';

const lease = {
  reservation: { id: 'k3m9' },
  ssh: { host: 'gpudev-k3m9', folder: '/srv/disks/my work' }
} as unknown as ILease;

it('gives commands that can be pasted', () => {
  expect(commands(lease)).toEqual({
    connect: 'gpu-dev connect k3m9',
    config: 'gpu-dev ssh-config',
    ssh: 'ssh gpudev-k3m9'
  });
});

it('quotes what a shell would read', () => {
  expect(quoted("a'; rm -rf $HOME")).toBe(`'a'\\''; rm -rf $HOME'`);
  expect(quoted('')).toBe("''");
});

it('links editors to the home directory', () => {
  expect(editorLink('vscode', lease)).toBe(
    'vscode://vscode-remote/ssh-remote+gpudev-k3m9/srv/disks/my%20work?windowId=_blank'
  );
  expect(editorLink('cursor', lease)).toMatch(/^cursor:/);
});
