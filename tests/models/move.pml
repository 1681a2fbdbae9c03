/* move.pml: a publisher goes over to a next ring (lib/channel/pub_move.c) while a reader reads. The reader says where
   it is in its line of the old ring and, once it has come to the next, in that one's, its twin. The publisher may have
   raised limit by the old line's cursor; in the next ring it looks at the twin, and one below limit is nobody's.
   Holds: a reader that is waited for loses nothing.
   -DLINEFIRST the old line is written before the twin     -DEARLY the publisher does not wait for the reader to come
   -DNOPOS     the reader comes to the next ring without saying where it is */
#define CAP 3
#define NMSG 7
byte tail, limit = CAP;
byte line, twin; bool come, moved; bool moving;
/* Stores reach memory in order: a buffer of one for each of the two words, drained in the order of the program. */
proctype Writer(){ byte m, c;
  do
  :: tail < NMSG && tail < limit -> tail++
  :: tail < NMSG && tail >= limit ->
     c = (moved -> twin : line);
     m = tail;
     if :: c < m && c + CAP >= limit -> m = c :: else fi;
     if :: m + CAP > limit -> limit = (m + CAP < tail + 1 -> m + CAP : tail + 1) :: else fi;
     m = 0; c = 0
  :: !moving -> moving = 1
#ifdef EARLY
  :: moving && !moved -> moved = 1
#else
  :: moving && !moved && come -> moved = 1
#endif
  :: tail == NMSG -> break
  od }
proctype Reader(){ byte pos;
  do
  :: pos < tail ->
     assert(limit <= pos + CAP);   /* or it is lapped: lost */
     pos++;
     if
     :: come ->
#ifdef LINEFIRST
        line = pos; twin = pos
#else
        twin = pos; line = pos
#endif
     :: else -> line = pos
     fi
  :: moving && !come ->
#ifndef NOPOS
     twin = pos;
#endif
     come = 1
  :: pos == NMSG -> break
  od }
init{ atomic{ run Writer(); run Reader() } }
