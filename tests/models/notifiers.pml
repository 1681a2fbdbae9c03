/* notifiers.pml: one data bell, NW publishers that notify it, NR readers that sleep on it. One of them all may be
   killed: a publisher after any of its steps, a reader anywhere; then the broker tolls. Store buffers on the tails.
   Holds: when nothing can move any more every living reader has read all that was committed.
   -DHEAVYLESS  no first, short sleep that outlasts store buffers      -DNOTOLL      nobody tolls after a death
   -DTOLLIFBIT  the broker tolls only if somebody seems to sleep       -DONCE        a sleeper that is woken in vain sleeps
   on without setting the bit again */
#ifndef NW
#define NW 2
#endif
#ifndef NR
#define NR 2
#endif
#ifndef NMSG
#define NMSG 2
#endif
byte tail[NW], tb[NW]; bool tv[NW];
byte bell; bool asleep[NR]; bool dead[NR];
byte pos[NR*NW]; byte deaths; bool to_toll;
#define POS(r,w) pos[(r)*NW+(w)]
inline fl(i){ if :: tv[i] -> tail[i] = tb[i]; tv[i] = 0; tb[i] = 0 :: else fi }
inline wake_all(){ d_step{ asleep[0] = 0; asleep[NR-1] = 0 } }
#define FLALL d_step{ fl(0); fl(NW-1) }
active proctype Flusher(){ end: do
 :: d_step{ tv[0] -> tail[0] = tb[0]; tv[0] = 0; tb[0] = 0 }
 :: d_step{ tv[NW-1] -> tail[NW-1] = tb[NW-1]; tv[NW-1] = 0; tb[NW-1] = 0 }
 od }
#define MAYDIE if :: deaths == 0 -> deaths = 1; goto killed :: skip fi
proctype Writer(byte i){ byte n, v; bool ok;
  do
  :: n < NMSG -> n++;
     d_step{ fl(i); tb[i] = n; tv[i] = 1 };
     MAYDIE;
     v = bell;
     if
     :: v & 1 ->
        atomic{ fl(i); if :: bell == v -> bell = (v + 1) % 16; ok = 1 :: else -> ok = 0 fi };
        MAYDIE;
        if :: ok -> wake_all() :: else fi
     :: else
     fi;
     v = 0; ok = 0
  :: else -> break
  od;
  goto fin;
killed: skip; d_step{ fl(i) }; to_toll = 1;
fin: skip }
active proctype Broker(){ end: to_toll -> to_toll = 0;
#if defined(NOTOLL)
  skip
#elif defined(TOLLIFBIT)
  if :: bell & 1 -> atomic{ bell = ((bell & 14) + 2) % 16 }; wake_all() :: else fi
#else
  atomic{ bell = (bell + 2) % 16 }; wake_all()
#endif
}
#define NEWS(r) (tail[0] > POS(r,0) || tail[NW-1] > POS(r,NW-1))
proctype Reader(byte r){ byte v;
  do
  :: tail[0] > POS(r,0) -> POS(r,0) = POS(r,0) + 1
  :: tail[NW-1] > POS(r,NW-1) -> POS(r,NW-1) = POS(r,NW-1) + 1
  :: !NEWS(r) ->
     MAYDIE;
#ifdef ONCE
     atomic{ if :: !(v & 1) -> bell = bell | 1 :: else fi; v = bell };
#else
     atomic{ bell = bell | 1; v = bell };
#endif
     MAYDIE;
#ifndef HEAVYLESS
     FLALL;
#endif
     if
     :: NEWS(r)
     :: else -> atomic{ if :: bell == v -> asleep[r] = 1 :: else fi };
endsleep: (!asleep[r])
     fi;
#ifndef ONCE
     v = 0
#endif
  od;
killed: skip; d_step{ dead[r] = 1; asleep[r] = 0 }; to_toll = 1 }
active proctype Monitor(){ end: timeout ->
  assert(dead[0] || !NEWS(0)); assert(dead[NR-1] || !NEWS(NR-1)) }
init{ atomic{ run Writer(0); run Reader(0);
#if NW > 1
 run Writer(1);
#endif
#if NR > 1
 run Reader(1)
#endif
 } }
