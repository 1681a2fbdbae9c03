/* queue.pml: a work queue's claims on one ring. Two workers, of whom one may be killed once anywhere, and either may put a
   message back once; a writer that waits for the group's cursor and the workers' lines. Stores go through a buffer per
   variable (cursor and state of a line), a release store of state goes behind its cursor, a compare-and-swap drains its
   worker's. A word is turn*32 + holder*16 + state, with
   turns of one bit. The group is there already: joining is ring.pml's and entry.pml's.
   Nothing is lost: at the end all is done with. Nothing is torn: what is in hand stays. Nothing comes twice but what was
   put back, or was in a dead worker's line.
   mutations: -DSCANBAD  the writer looks at the lines before the group's cursor
              -DNOTELATE the claim goes before the note of it
              -DEARLY    a line says TAKEN before the claim
              -DNOVALID  what may have been claimed is handed out without a look whether it is there still
              -DPREVALID it is looked at before the copy, not after
   -DNOBACK   nobody puts anything back
              -DFORGET   what is reserved or being taken by a dead worker is forgotten */
#ifndef CAP
#define CAP 2
#endif
#ifndef NMSG
#define NMSG 4
#endif
#ifdef NOBACK
#define MAYBACK 0
#else
#define MAYBACK 1
#endif
#define IDLE 8
#define RESERVED 9
#define TAKING 10
#define TAKEN 11
#define BACK 12
#define WORD(t,h,s) (((t)%2)*32 + (h)*16 + (s))
#define STATE(w) ((w)%16)
#define HOLDER(w) (((w)/16)%2)
#define TURN(w) ((w)/32)
byte data[CAP]; byte tail, limit_m = CAP, claim;
byte cur[2]; byte st[2] = IDLE;
bool cw[2], sw[2]; byte cb[2], sb[2], ln[2];      /* a worker's buffers, and the line that they are for */
bool dead[2]; bool killed; bool backed[2];
byte given[NMSG], done[NMSG], excuse[NMSG]; bool wdone, left1;
inline drain(i){ d_step{ if :: cw[i] -> cur[ln[i]] = cb[i]; cw[i] = 0; cb[i] = 0 :: else fi; if :: sw[i] -> st[ln[i]] = sb[i]; sw[i] = 0; sb[i] = 0 :: else fi } }
inline note(i,x){ d_step{ if :: cw[i] -> cur[ln[i]] = cb[i] :: else fi; cb[i] = x; cw[i] = 1 } }
inline say(i,s){ d_step{ if :: sw[i] -> if :: cw[i] -> cur[ln[i]] = cb[i]; cw[i] = 0; cb[i] = 0 :: else fi; st[ln[i]] = sb[i] :: else fi;
                         sb[i] = (w - STATE(w)) + s; sw[i] = 1 } }
active proctype Flusher(){
end: do
 :: d_step{ cw[0] -> cur[ln[0]] = cb[0]; cw[0] = 0; cb[0] = 0 }
 :: d_step{ cw[1] -> cur[ln[1]] = cb[1]; cw[1] = 0; cb[1] = 0 }
 :: d_step{ sw[0] && !cw[0] -> st[ln[0]] = sb[0]; sw[0] = 0; sb[0] = 0 }
 :: d_step{ sw[1] && !cw[1] -> st[ln[1]] = sb[1]; sw[1] = 0; sb[1] = 0 }
 od }
byte w_lim = CAP, w_m, w_s, w_c;
inline look(k){ w_s = STATE(st[k]); w_c = cur[k];
  if :: (w_s == TAKING || w_s == TAKEN || w_s == BACK) && w_c < w_m && w_c + CAP >= w_lim -> w_m = w_c :: else fi; w_s = 0; w_c = 0 }
inline lookclaim(){ w_c = claim; if :: w_c < w_m && w_c + CAP >= w_lim -> w_m = w_c :: else fi; w_c = 0 }
active proctype Writer(){
  do
  :: tail < NMSG ->
     if :: tail + 1 > w_lim ->
        w_m = tail;
#ifdef SCANBAD
        look(0); look(1); lookclaim();
#else
        lookclaim(); look(0); look(1);
#endif
        if :: w_m + CAP > w_lim -> w_lim = w_m + CAP; limit_m = w_lim :: else fi; w_m = 0
     :: else fi;
     if :: tail + 1 <= w_lim -> data[tail % CAP] = 255; data[tail % CAP] = tail + 1; tail++ :: else fi
  :: else -> break
  od; wdone = 1 }
/* Try to make line k's word ours. */
inline seize(k,seen,s){ drain(id); atomic{ if :: st[k] == seen -> w = WORD(TURN(seen) + 1, id, s); st[k] = w; ln[id] = k; got = 1 :: else got = 0 fi } }
/* It is in hand: use it, and then it is done with, or put back. */
inline use(p){
  d_step{ given[p]++; assert(given[p] <= 1 + excuse[p]) };
  if :: copied :: else b = data[p % CAP]; assert(b == p + 1); b = 0 fi;
  drain(id);
  if
  :: MAYBACK && !backed[id] && !copied -> atomic{ backed[id] = 1; excuse[p]++; if :: st[ln[id]] == w -> st[ln[id]] = w - STATE(w) + BACK :: else assert(0) fi }
  :: atomic{ done[p]++; if :: st[ln[id]] == w -> st[ln[id]] = w - STATE(w) + IDLE :: else assert(0) fi }
  fi; w = 0; copied = 0 }
#define FREE(k) (STATE(st[k]) == IDLE)
#define LEFT(k) (STATE(st[k]) == BACK || (STATE(st[k]) > IDLE && HOLDER(st[k]) != id && dead[HOLDER(st[k])]))
proctype Worker(byte id){
  byte p, b, w, seen, k, s; bool got, copied;
  {
  do
  :: claim < tail && (FREE(0) || FREE(1)) ->
     if :: FREE(id) -> k = id :: else k = 1 - id fi;
     seen = st[k];
     if :: STATE(seen) == IDLE -> seize(k, seen, RESERVED) :: else got = 0 fi;
     if :: got ->
        p = claim;
        if :: p < tail ->
#ifndef NOTELATE
           note(id, p);
#ifdef EARLY
           say(id, TAKEN);
#else
           say(id, TAKING);
#endif
#endif
           b = data[p % CAP];       /* its size */
#ifndef NOTELATE
           drain(id);
#endif
           atomic{ if :: claim == p -> claim = p + 1; assert(b == p + 1) :: else got = 0 fi }; b = 0;
           if :: got ->
#ifdef NOTELATE
              note(id, p);
#endif
              say(id, TAKEN); w = w - STATE(w) + TAKEN; use(p)
           :: else say(id, IDLE) fi
        :: else say(id, IDLE) fi
     :: else fi; drain(id); p = 0; w = 0; seen = 0; k = 0; got = 0
  :: LEFT(0) || LEFT(1) ->
     if :: LEFT(0) -> k = 0 :: LEFT(1) -> k = 1 :: else fi;
     seen = st[k];
     if :: STATE(seen) == BACK || (STATE(seen) > IDLE && HOLDER(seen) != id && dead[HOLDER(seen)]) ->
        s = (STATE(seen) == BACK -> TAKEN : STATE(seen));
        seize(k, seen, s)
     :: else got = 0 fi;
     if :: got ->
        p = cur[k];
        if
        :: s == TAKEN -> use(p)
#ifndef FORGET
        :: s == TAKING && claim > p ->
#ifdef NOVALID
           use(p)
#else
#ifdef PREVALID
           if :: limit_m <= p + CAP -> b = data[p % CAP]; assert(b == p + 1); b = 0; copied = 1; use(p) :: else say(id, IDLE) fi
#else
           b = data[p % CAP];
           if :: limit_m <= p + CAP -> assert(b == p + 1); b = 0; copied = 1; use(p) :: else b = 0; say(id, IDLE) fi
#endif
#endif
#endif
        :: else say(id, IDLE)
        fi
     :: else fi; drain(id); p = 0; w = 0; seen = 0; k = 0; s = 0; got = 0
  :: wdone && claim == NMSG && STATE(st[0]) == IDLE && STATE(st[1]) == IDLE && (id == 1 || left1 || dead[1]) ->
     if :: id == 1 -> left1 = 1 :: else fi; break
  od } unless { dead[id] };
  if :: dead[id] :: else fi }
/* What it had stored is stored; and what its line says it had, or was claiming, may come again. */
active proctype Killer(){
  byte k;
end: if :: d_step{ !killed && !left1 -> killed = 1;
     if :: cw[1] -> cur[ln[1]] = cb[1]; cw[1] = 0; cb[1] = 0 :: else fi; if :: sw[1] -> st[ln[1]] = sb[1]; sw[1] = 0; sb[1] = 0 :: else fi;
     k = 0; do :: k < 2 -> if :: HOLDER(st[k]) == 1 && (STATE(st[k]) == TAKING || STATE(st[k]) == TAKEN) && cur[k] < NMSG -> excuse[cur[k]]++ :: else fi; k++ :: else -> break od; k = 0;
     dead[1] = 1 } fi }
init { byte i;
  atomic{ run Worker(0); run Worker(1) };
  (wdone && claim == NMSG && STATE(st[0]) == IDLE && STATE(st[1]) == IDLE && !sw[0] && !sw[1]);
  do :: i < NMSG -> assert(done[i] >= 1); i++ :: else -> break od }
