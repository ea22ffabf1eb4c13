// What the service says in English sentences, in JupyterLab's language. A sentence that is not known here
// is shown as it came, so that a newer service is understood by an older panel.
import { type IWords, told } from './words';

const ENGLISH: IWords = { __: text => text, _n: one => one };

/** Sentences whose values are names, numbers and moments: these are the same in every language. */
function sentences(trans: IWords): string[] {
  return [
    trans.__('A lease may last %1 hours in all.', '%1'),
    trans.__('A lease may be extended by %1 hours in all.', '%1'),
    trans.__('The GPUs are promised to others after that.'),
    trans.__('Your own “%1” has been promised %2 from %3.', '%1', '%2', '%3'),
    trans.__('Somebody who waits has been promised %1 from %2.', '%1', '%2'),
    trans.__('Nobody has used it since %1; it is given back at %2.', '%1', '%2'),
    trans.__('Nobody has used it since %1.', '%1'),
    trans.__('Kept on request until %1.', '%1'),
    trans.__('Whether it is used is not known.'),
    trans.__('In use. Without more use it counts as idle from %1.', '%1'),
    trans.__('In use.'),
    trans.__('The server has not said for a while what goes on in it.'),
    trans.__('1 kernel is busy.'),
    trans.__('%1 kernels are busy.', '%1'),
    trans.__('Something works in 1 terminal.'),
    trans.__('Something works in %1 terminals.', '%1'),
    trans.__('1 SSH session in use.'),
    trans.__('%1 SSH sessions in use.', '%1'),
    trans.__('Programs work the processor.'),
    trans.__('The GPUs compute, at %1 %.', '%1'),
    trans.__('Load less at once, or reserve more GPUs: memory comes with them.'),
    trans.__('The cluster took the server\'s place away for something more important.'),
    trans.__('The node on which the server ran was lost or taken out of service.'),
    trans.__('The node on which the server ran has left the cluster.'),
    trans.__('The node on which the server ran does not answer any more.'),
    trans.__('The node on which the server ran was shut down.'),
    trans.__('The node ran short of resources and ended the server.'),
    trans.__('The node ran short of memory and ended the server.'),
    trans.__('The node lost track of the server.'),
    trans.__('The server was moved off its node by an operator.'),
    trans.__('The server wrote more onto its node\'s own disk than it may, and was ended for it.'),
    trans.__('Write into your home directory instead.'),
    trans.__('The server\'s pod was deleted, not by gpudev.'),
    trans.__('The server has ended unexpectedly.'),
    trans.__('The server runs again.'),
    trans.__('It was started again in its place.'),
    trans.__('It was started again in its place, %1 times so far.', '%1')
  ];
}

/** Sentences whose values are such words as `words` has. */
function composed(trans: IWords): string[] {
  return [
    trans.__('Kept on request, %1 more.', '%1'),
    trans.__('The %1 are busy.', '%1'),
    trans.__('No use of %1 since the server is up.', '%1'),
    trans.__('%1: last used just now.', '%1'),
    trans.__('%1: last used %2 days %3 h ago.', '%1', '%2', '%3'),
    trans.__('%1: last used %2 days ago.', '%1', '%2'),
    trans.__('%1: last used %2 ago.', '%1', '%2'),
    trans.__('%1 used more memory than it has (%2), and was ended for it.', '%1', '%2'),
    trans.__('%1 used more memory than it has, and was ended for it.', '%1'),
    trans.__('%1 has ended with code %2.', '%1', '%2'),
    trans.__('%1 was killed.', '%1')
  ];
}

function words(trans: IWords): string[] {
  return [
    trans.__('kernels'),
    trans.__('Kernels'),
    trans.__('terminals'),
    trans.__('Terminals'),
    trans.__('programs'),
    trans.__('Programs'),
    trans.__('SSH sessions'),
    trans.__('The server'),
    trans.__('The worker on %1', '%1'),
    trans.__('%1 days %2 h', '%1', '%2'),
    trans.__('%1 days', '%1')
  ];
}

/** What the service says in JupyterLab's language, its moments in the browser's zone. */
export function said(text: string, now: Date, trans: IWords): string {
  const same = (part: string): string => part;
  const word = (part: string): string => translated(part, words, trans, same) ?? part;
  // As a whole first: some stand together, and names may have a full stop.
  const found =
    translated(text, sentences, trans, same) ??
    text
      .split(/(?<=\.) (?=[A-Z])/)
      .map(one => translated(one, sentences, trans, same) ?? translated(one, composed, trans, word) ?? one)
      .join(' ');
  return told(found, now, trans.locale);
}

function translated(
  text: string,
  known: (trans: IWords) => string[],
  trans: IWords,
  value: (part: string) => string
): string | null {
  const here = known(trans);
  for (const [at, english] of known(ENGLISH).entries()) {
    const parts = pattern(english).exec(text);
    if (parts) {
      return (here[at] ?? english).replace(/%(\d)/g, (_, place) => value(parts[Number(place)] ?? ''));
    }
  }
  return null;
}

/** What a sentence with its values looks like; the values come in their English order. */
function pattern(english: string): RegExp {
  const plain = english.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`^${plain.replace(/%\d/g, '(.+)')}$`);
}
