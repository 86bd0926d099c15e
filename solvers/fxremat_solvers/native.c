/* Schedule search in C: an exact incremental oracle, and annealing over edits of a schedule.
 *
 * Compiled at first use by native.py (which says why), used by local_search.py (which says what
 * for). The state is a sequence of steps (op indices). For every value the steps that compute or
 * read it are kept in order, which fixes the intervals during which it is live (the oracle's
 * rules, simulate.py), and for every step the bytes live while it runs.
 *
 * An edit deletes steps and inserts others. It is priced without touching the state: only values
 * read or made by those steps can change their intervals, and only the memory between the changed
 * ends has to be looked at (in blocks, skipping those that stay below the budget). An accepted
 * edit rebuilds the state, which is linear in the size of the schedule.
 *
 * All bytes are doubles holding whole numbers, exact to 2^53. No global state.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct {
    int32_t n_ops, n_values;
    const int32_t *in_ptr, *in_idx, *out_ptr, *out_idx; /* counted values only, no repeats */
    const int32_t *producer;                            /* op that makes each value */
    const double *bytes, *cost, *workspace;
    const uint8_t *recomputable, *is_output;
} Problem;

typedef struct {
    double temperature_start, temperature_end; /* in units of cost */
    /* The cost of one byte above the budget for one step: it rises while the schedule is above
     * the budget and falls while it fits, so that the search stays near the edge. */
    double price_start, price_end, price_up, price_down;
    double shift_weight, drop_weight, keep_weight, swap_weight;
    double time_limit_s;
    int64_t edits;
    int32_t lower_the_peak; /* 1: the budget follows the best peak down */
} Effort;

#define SHIFT 20 /* room for this many bits of insertions between two steps */
#define BLOCK 64
#define COORD(step) (((int64_t)(step) + 1) << SHIFT)
#define FIRST_STEP_FROM(place) ((((place) + (1 << SHIFT) - 1) >> SHIFT) - 1)

typedef struct {
    int32_t before, op, id;
} Insertion;

typedef struct {
    int32_t n_deleted, n_inserted, deleted_cap, inserted_cap;
    int32_t *deleted;
    Insertion *inserted;
} Edit;

typedef struct {
    int64_t at;
    double delta;
} Change;

typedef struct {
    int64_t at;
    int32_t computes, deleted, next;
} EditEvent;

/* A short list of events or runs, kept in the order of the schedule. */
typedef struct {
    int32_t *at, n, cap;
} List;

typedef struct {
    const Problem *p;
    double budget;
    /* A step has an id that survives edits; `steps` holds ids in order, `place` inverts it. */
    int32_t n_steps, step_cap, id_cap, n_free;
    int32_t *steps, *spare, *op_of, *place, *free_id;
    List *event; /* of each value: step id * 2 + (1 if it computes the value) */
    List *run;   /* of each op: ids of the steps that run it */
    int32_t n_repeated, *repeated, *repeated_at; /* ids of steps of ops that run several times */
    double *running, *resident, *block_max, *spare_running, *spare_resident;
    double cost, over;
    /* scratch of price() and of the move makers */
    uint32_t stamp, *value_stamp, *op_stamp;
    int32_t *touched, *head, *op_delta;
    EditEvent *edit_event;
    int32_t edit_event_cap, n_edit_events;
    int64_t *merged, merged_cap;
    Change *change;
    int64_t change_cap, n_changes;
    double *weight; /* cumulative bytes, to draw values by size */
    uint64_t rng;
    double worst; /* the largest excess seen by the last price(), and the step where it was */
    int64_t worst_at;
} State;

/* ---- random numbers: splitmix64, the same on every machine ---- */
static uint64_t next_random(State *s) {
    uint64_t z = (s->rng += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}
static double uniform(State *s) { return (double)(next_random(s) >> 11) * 0x1.0p-53; }
static int32_t below(State *s, int32_t n) { return (int32_t)((next_random(s) >> 32) * (uint64_t)n >> 32); }

static void *grown(void *old, int64_t *cap, int64_t wanted, size_t size) {
    if (wanted <= *cap) return old;
    *cap = wanted + wanted / 2 + 64;
    return realloc(old, (size_t)*cap * size);
}

/* ---- the state ---- */
static void grow_steps(State *s, int32_t wanted) {
    if (wanted <= s->step_cap) return;
    int32_t old_ids = s->id_cap;
    s->step_cap = wanted + wanted / 2 + 64;
    size_t n = (size_t)s->step_cap + 1;
    s->id_cap = (int32_t)n;
    int32_t **ints[] = {&s->steps, &s->spare, &s->op_of, &s->place, &s->free_id, &s->repeated, &s->repeated_at};
    for (size_t i = 0; i < sizeof(ints) / sizeof(*ints); i++) *ints[i] = realloc(*ints[i], n * sizeof(int32_t));
    double **doubles[] = {&s->running, &s->resident, &s->spare_running, &s->spare_resident};
    for (size_t i = 0; i < sizeof(doubles) / sizeof(*doubles); i++)
        *doubles[i] = realloc(*doubles[i], n * sizeof(double));
    s->block_max = realloc(s->block_max, (n / BLOCK + 2) * sizeof(double));
    for (int32_t id = s->id_cap - 1; id >= old_ids; id--) s->free_id[s->n_free++] = id;
}

static void push(List *list, int32_t index, int32_t item) {
    if (list->n == list->cap) {
        list->cap = 2 * list->cap + 4;
        list->at = realloc(list->at, (size_t)list->cap * sizeof(int32_t));
    }
    memmove(list->at + index + 1, list->at + index, (size_t)(list->n - index) * sizeof(int32_t));
    list->at[index] = item;
    list->n++;
}

static void remove_at(List *list, int32_t index) {
    list->n--;
    memmove(list->at + index, list->at + index + 1, (size_t)(list->n - index) * sizeof(int32_t));
}

static int32_t event_step(const State *s, int32_t v, int32_t i) { return s->place[s->event[v].at[i] >> 1]; }
static int computes(const State *s, int32_t v, int32_t i) { return s->event[v].at[i] & 1; }
static int32_t op_at(const State *s, int32_t step) { return s->op_of[s->steps[step]]; }

/* The first event of v at `step` or later. */
static int32_t first_event(const State *s, int32_t v, int32_t step) {
    int32_t lo = 0, hi = s->event[v].n;
    while (lo < hi) {
        int32_t mid = (lo + hi) / 2;
        if (event_step(s, v, mid) < step) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

static void mark_repeated(State *s, int32_t id, int yes) {
    if (yes && s->repeated_at[id] < 0) {
        s->repeated_at[id] = s->n_repeated;
        s->repeated[s->n_repeated++] = id;
    } else if (!yes && s->repeated_at[id] >= 0) {
        int32_t last = s->repeated[--s->n_repeated];
        s->repeated[s->repeated_at[id]] = last;
        s->repeated_at[last] = s->repeated_at[id];
        s->repeated_at[id] = -1;
    }
}

/* Enter the step into the lists of its op and values; its place must be set. */
static void link_step(State *s, int32_t id) {
    const Problem *p = s->p;
    const int32_t op = s->op_of[id], step = s->place[id];
    List *run = &s->run[op];
    push(run, run->n, id);
    s->repeated_at[id] = -1;
    if (run->n > 1)
        for (int32_t i = run->n > 2 ? run->n - 1 : 0; i < run->n; i++) mark_repeated(s, run->at[i], 1);
    for (int32_t i = p->in_ptr[op]; i < p->in_ptr[op + 1]; i++)
        push(&s->event[p->in_idx[i]], first_event(s, p->in_idx[i], step), 2 * id);
    for (int32_t i = p->out_ptr[op]; i < p->out_ptr[op + 1]; i++)
        push(&s->event[p->out_idx[i]], first_event(s, p->out_idx[i], step), 2 * id + 1);
}

static void unlink_step(State *s, int32_t id) {
    const Problem *p = s->p;
    const int32_t op = s->op_of[id], step = s->place[id];
    List *run = &s->run[op];
    int32_t k = 0;
    while (run->at[k] != id) k++;
    remove_at(run, k);
    mark_repeated(s, id, 0);
    if (run->n == 1) mark_repeated(s, run->at[0], 0);
    for (int32_t i = p->in_ptr[op]; i < p->in_ptr[op + 1]; i++)
        remove_at(&s->event[p->in_idx[i]], first_event(s, p->in_idx[i], step));
    for (int32_t i = p->out_ptr[op]; i < p->out_ptr[op + 1]; i++)
        remove_at(&s->event[p->out_idx[i]], first_event(s, p->out_idx[i], step));
}

static void refresh_blocks(State *s, int32_t from, int32_t to) {
    if (to > s->n_steps) to = s->n_steps;
    for (int32_t block = from / BLOCK; block * BLOCK < to; block++) {
        int32_t end = (block + 1) * BLOCK < s->n_steps ? (block + 1) * BLOCK : s->n_steps;
        double top = 0;
        for (int32_t t = block * BLOCK; t < end; t++)
            if (s->running[t] > top) top = s->running[t];
        s->block_max[block] = top;
    }
}

static double peak(const State *s) {
    double top = 0;
    for (int32_t block = 0; block * BLOCK < s->n_steps; block++)
        if (s->block_max[block] > top) top = s->block_max[block];
    return top;
}

static void set_budget(State *s, double budget) {
    s->budget = budget;
    s->over = 0;
    for (int32_t t = 0; t < s->n_steps; t++)
        if (s->running[t] > budget) s->over += s->running[t] - budget;
}

/* The whole state from a sequence of ops. */
static void load(State *s, const int32_t *ops, int32_t n, double budget) {
    const Problem *p = s->p;
    for (int32_t v = 0; v < p->n_values; v++) s->event[v].n = 0;
    for (int32_t op = 0; op < p->n_ops; op++) s->run[op].n = 0;
    grow_steps(s, n);
    s->n_free = 0;
    for (int32_t id = s->id_cap - 1; id >= n; id--) s->free_id[s->n_free++] = id;
    s->n_steps = n;
    s->n_repeated = 0;
    s->cost = 0;
    for (int32_t t = 0; t < n; t++) {
        s->steps[t] = s->place[t] = t;
        s->op_of[t] = ops[t];
        s->cost += p->cost[ops[t]];
        s->running[t] = s->resident[t] = 0;
    }
    for (int32_t t = 0; t < n; t++) link_step(s, t);
    /* running: bytes whose life starts at t; resident: bytes whose life ends at t */
    for (int32_t v = 0; v < p->n_values; v++) {
        int32_t i = 0, events = s->event[v].n;
        while (i < events) {
            int32_t start = event_step(s, v, i), end = start;
            for (i++; i < events && !computes(s, v, i); i++) end = event_step(s, v, i);
            s->running[start] += p->bytes[v];
            if (i < events || !p->is_output[v]) s->resident[end] += p->bytes[v];
        }
    }
    double live = 0;
    for (int32_t t = 0; t < n; t++) {
        live += s->running[t];
        s->running[t] = live + p->workspace[ops[t]];
        live -= s->resident[t];
        s->resident[t] = live;
    }
    refresh_blocks(s, 0, n);
    set_budget(s, budget);
}

/* Is v in memory just before `step` runs, because something at or after `step` reads it? */
static int live_before(const State *s, int32_t v, int32_t step) {
    int32_t i = first_event(s, v, step);
    if (i == 0) return 0;
    if (i < s->event[v].n) return !computes(s, v, i);
    return s->p->is_output[v];
}

/* ---- edits ---- */
static void clear(Edit *e) { e->n_deleted = e->n_inserted = 0; }

static int is_deleted(const Edit *e, int32_t step) {
    for (int32_t i = 0; i < e->n_deleted; i++)
        if (e->deleted[i] == step) return 1;
    return 0;
}

static void add_deletion(Edit *e, int32_t step) {
    if (e->n_deleted == e->deleted_cap) {
        e->deleted_cap = 2 * e->deleted_cap + 64;
        e->deleted = realloc(e->deleted, (size_t)e->deleted_cap * sizeof(int32_t));
    }
    if (is_deleted(e, step)) return;
    int32_t i = e->n_deleted++;
    for (; i > 0 && e->deleted[i - 1] > step; i--) e->deleted[i] = e->deleted[i - 1];
    e->deleted[i] = step;
}

static void add_insertion(Edit *e, int32_t before, int32_t op) {
    if (e->n_inserted == e->inserted_cap) {
        e->inserted_cap = 2 * e->inserted_cap + 64;
        e->inserted = realloc(e->inserted, (size_t)e->inserted_cap * sizeof(Insertion));
    }
    int32_t i = e->n_inserted++;
    for (; i > 0 && e->inserted[i - 1].before > before; i--) e->inserted[i] = e->inserted[i - 1];
    e->inserted[i] = (Insertion){before, op, -1};
}

static void touch(State *s, int32_t *n_touched, int32_t v, int64_t at, int computes, int deleted) {
    if (s->value_stamp[v] != s->stamp) {
        s->value_stamp[v] = s->stamp;
        s->touched[(*n_touched)++] = v;
        s->head[v] = -1;
    }
    if (s->n_edit_events == s->edit_event_cap) {
        s->edit_event_cap = 2 * s->edit_event_cap + 256;
        s->edit_event = realloc(s->edit_event, (size_t)s->edit_event_cap * sizeof(EditEvent));
    }
    /* kept in order of `at`: steps arrive in order, so the tail is nearly always the place */
    int32_t *link = &s->head[v];
    while (*link >= 0 && s->edit_event[*link].at < at) link = &s->edit_event[*link].next;
    s->edit_event[s->n_edit_events] = (EditEvent){at, computes, deleted, *link};
    *link = s->n_edit_events++;
}

static void touch_step(State *s, int32_t *n, int32_t op, int64_t at, int deleted) {
    const Problem *p = s->p;
    for (int32_t i = p->in_ptr[op]; i < p->in_ptr[op + 1]; i++)
        touch(s, n, p->in_idx[i], at, 0, deleted);
    for (int32_t i = p->out_ptr[op]; i < p->out_ptr[op + 1]; i++)
        touch(s, n, p->out_idx[i], at, 1, deleted);
}

static int by_place(const void *a, const void *b) {
    int64_t x = ((const Change *)a)->at, y = ((const Change *)b)->at;
    return (x > y) - (x < y);
}

static void sort_changes(Change *c, int64_t n) {
    if (n > 48) {
        qsort(c, (size_t)n, sizeof(Change), by_place);
        return;
    }
    for (int64_t i = 1; i < n; i++) {
        Change x = c[i];
        int64_t j = i;
        for (; j > 0 && c[j - 1].at > x.at; j--) c[j] = c[j - 1];
        c[j] = x;
    }
}

static int64_t insertion_place(const Edit *e, int32_t i, int32_t *group_end) {
    if (*group_end <= i) {
        int32_t j = i;
        while (j < e->n_inserted && e->inserted[j].before == e->inserted[i].before) j++;
        *group_end = j;
    }
    return COORD(e->inserted[i].before) - 2 * (*group_end - i);
}

/* The change in cost and in bytes above the budget if `e` were applied; 0 if it can't be. */
static int price(State *s, const Edit *e, double *d_cost, double *d_over) {
    const Problem *p = s->p;
    int32_t n_touched = 0, group_end = 0, ok = 1;
    double cost = 0;
    s->stamp++;
    s->n_edit_events = 0;
    for (int32_t i = 0; i < e->n_deleted; i++) {
        int32_t op = op_at(s, e->deleted[i]);
        cost -= p->cost[op];
        s->op_delta[op]--;
    }
    for (int32_t i = 0; i < e->n_inserted; i++) {
        cost += p->cost[e->inserted[i].op];
        s->op_delta[e->inserted[i].op]++;
    }
    for (int32_t i = 0; i < e->n_deleted; i++) {
        int32_t op = op_at(s, e->deleted[i]);
        if (s->run[op].n + s->op_delta[op] < 1) ok = 0;
    }
    for (int32_t i = 0; i < e->n_inserted; i++) {
        int32_t op = e->inserted[i].op;
        if (s->op_delta[op] > 0 && !p->recomputable[op]) ok = 0;
    }
    for (int32_t i = 0; i < e->n_deleted; i++) s->op_delta[op_at(s, e->deleted[i])] = 0;
    for (int32_t i = 0; i < e->n_inserted; i++) s->op_delta[e->inserted[i].op] = 0;
    *d_cost = cost;
    if (!ok) return 0;
    for (int32_t i = 0; i < e->n_deleted; i++)
        touch_step(s, &n_touched, op_at(s, e->deleted[i]), COORD(e->deleted[i]), 1);
    for (int32_t i = 0; i < e->n_inserted; i++)
        touch_step(s, &n_touched, e->inserted[i].op, insertion_place(e, i, &group_end), 0);

    int64_t n_changes = 0;
    for (int32_t k = 0; k < n_touched; k++) {
        const int32_t v = s->touched[k];
        const int32_t last = s->event[v].n;
        /* merged: events after the edit as place * 2 + computes */
        int64_t n = 0;
        int32_t i = 0, x = s->head[v];
        s->merged = grown(s->merged, &s->merged_cap, last + s->n_edit_events, sizeof(int64_t));
        while (i < last || x >= 0) {
            int64_t at = i < last ? COORD(event_step(s, v, i)) : INT64_MAX;
            if (x >= 0 && s->edit_event[x].at <= at) {
                const EditEvent *ev = &s->edit_event[x];
                if (ev->deleted) i++; /* the same step's event */
                else s->merged[n++] = ev->at * 2 + ev->computes;
                x = ev->next;
            } else {
                s->merged[n++] = at * 2 + computes(s, v, i);
                i++;
            }
        }
        if (n && !(s->merged[0] & 1)) return 0; /* read before it is made */
        const double b = p->bytes[v];
        if (b == 0) continue;
        s->change = grown(s->change, &s->change_cap, n_changes + 2 * (n + last) + 4, sizeof(Change));
        /* both lists of intervals in order; equal ones cancel */
        const int64_t end_of_time = COORD(s->n_steps);
        int64_t in = 0;
        int32_t io = 0;
        int64_t old_start = -1, old_end = -1, new_start = -1, new_end = -1;
        for (;;) {
            if (old_start < 0 && io < last) {
                old_start = old_end = COORD(event_step(s, v, io));
                for (io++; io < last && !computes(s, v, io); io++) old_end = COORD(event_step(s, v, io));
                if (io == last && p->is_output[v]) old_end = end_of_time;
            }
            if (new_start < 0 && in < n) {
                new_start = new_end = s->merged[in] >> 1;
                for (in++; in < n && !(s->merged[in] & 1); in++) new_end = s->merged[in] >> 1;
                if (in == n && p->is_output[v]) new_end = end_of_time;
            }
            if (old_start < 0 && new_start < 0) break;
            if (old_start == new_start) {
                if (old_end < new_end) {
                    s->change[n_changes++] = (Change){old_end + 1, b};
                    s->change[n_changes++] = (Change){new_end + 1, -b};
                } else if (old_end > new_end) {
                    s->change[n_changes++] = (Change){new_end + 1, -b};
                    s->change[n_changes++] = (Change){old_end + 1, b};
                }
                old_start = new_start = -1;
            } else if (new_start < 0 || (old_start >= 0 && old_start < new_start)) {
                s->change[n_changes++] = (Change){old_start, -b};
                s->change[n_changes++] = (Change){old_end + 1, b};
                old_start = -1;
            } else {
                s->change[n_changes++] = (Change){new_start, b};
                s->change[n_changes++] = (Change){new_end + 1, -b};
                new_start = -1;
            }
        }
    }
    sort_changes(s->change, n_changes);
    s->n_changes = n_changes;

    double over = 0, delta = 0;
    int32_t i_ins = 0, i_del = 0;
    const double budget = s->budget;
    s->worst = 0;
    s->worst_at = -1;
    group_end = 0;
    int64_t place = 0;
    for (int64_t c = 0; c <= n_changes; c++) {
        const int64_t stop = c < n_changes ? s->change[c].at : COORD(s->n_steps) + 1;
        if (stop > place) {
            for (; i_ins < e->n_inserted; i_ins++) {
                int64_t at = insertion_place(e, i_ins, &group_end);
                if (at >= stop) break;
                int32_t before = e->inserted[i_ins].before;
                double used = (before ? s->resident[before - 1] : 0) + delta +
                              p->workspace[e->inserted[i_ins].op];
                if (used > budget) {
                    over += used - budget;
                    if (used - budget > s->worst) s->worst = used - budget, s->worst_at = before;
                }
            }
            int64_t t = FIRST_STEP_FROM(place), end = FIRST_STEP_FROM(stop);
            if (t < 0) t = 0;
            if (end > s->n_steps) end = s->n_steps;
            for (; i_del < e->n_deleted && e->deleted[i_del] < end; i_del++) {
                double used = s->running[e->deleted[i_del]];
                if (used + delta > budget) over -= used + delta - budget; /* the sweep adds it */
            }
            if (delta != 0) {
                while (t < end) {
                    int64_t block = t / BLOCK, upto = (block + 1) * BLOCK;
                    if (upto > end) upto = end;
                    double top = s->block_max[block];
                    if (top <= budget && top + delta <= budget) {
                        t = upto;
                        continue;
                    }
                    for (; t < upto; t++) {
                        double was = s->running[t] - budget, is = was + delta;
                        if (was > 0) over -= was;
                        if (is > 0) {
                            over += is;
                            if (is > s->worst) s->worst = is, s->worst_at = t;
                        }
                    }
                }
            }
        }
        if (c < n_changes) {
            if (stop > place) place = stop;
            delta += s->change[c].delta;
        }
    }
    *d_over = over;
    return 1;
}

/* Apply the edit that price() was last asked about. */
static void apply(State *s, Edit *e, double d_cost, double d_over) {
    const Problem *p = s->p;
    const int32_t old_n = s->n_steps, net = e->n_inserted - e->n_deleted;
    grow_steps(s, old_n + 2 * e->n_inserted);
    s->cost += d_cost;
    s->over += d_over;
    int32_t lo = old_n, hi = 0;
    if (e->n_deleted) {
        lo = e->deleted[0];
        hi = e->deleted[e->n_deleted - 1] + 1;
    }
    if (e->n_inserted) {
        if (e->inserted[0].before < lo) lo = e->inserted[0].before;
        if (e->inserted[e->n_inserted - 1].before > hi) hi = e->inserted[e->n_inserted - 1].before;
    }
    for (int32_t i = 0; i < e->n_deleted; i++) unlink_step(s, s->steps[e->deleted[i]]);
    /* the memory of the inserted steps, from the old arrays */
    int64_t c = 0;
    int32_t group_end = 0;
    double delta = 0;
    for (int32_t i = 0; i < e->n_inserted; i++) {
        const int64_t at = insertion_place(e, i, &group_end);
        const int32_t before = e->inserted[i].before;
        const double base = before ? s->resident[before - 1] : 0;
        for (; c < s->n_changes && s->change[c].at <= at; c++) delta += s->change[c].delta;
        s->spare_running[i] = base + delta + p->workspace[e->inserted[i].op];
        for (; c < s->n_changes && s->change[c].at <= at + 1; c++) delta += s->change[c].delta;
        s->spare_resident[i] = base + delta;
    }
    /* the steps that stay */
    int32_t first = lo, last = hi;
    delta = 0;
    for (c = 0; c + 1 < s->n_changes; c++) {
        delta += s->change[c].delta;
        const int64_t from = s->change[c].at, to = s->change[c + 1].at;
        if (delta == 0 || from == to) continue;
        int32_t t = (int32_t)FIRST_STEP_FROM(from), end = (int32_t)FIRST_STEP_FROM(to);
        if (t < first) first = t < 0 ? 0 : t;
        if (end > last) last = end;
        if (end > old_n) end = old_n;
        for (t = t < 0 ? 0 : t; t < end; t++) s->running[t] += delta;
        t = (int32_t)FIRST_STEP_FROM(from - 1);
        end = (int32_t)FIRST_STEP_FROM(to - 1);
        if (end > old_n) end = old_n;
        for (t = t < 0 ? 0 : t; t < end; t++) s->resident[t] += delta;
    }
    /* the window that is rearranged goes to the back of the scratch arrays, then into place */
    int32_t *ids = s->spare;
    double *running = s->spare_running + e->n_inserted, *resident = s->spare_resident + e->n_inserted;
    int32_t n = 0, d = 0, i = 0;
    for (int32_t t = lo; t <= hi; t++) {
        for (; i < e->n_inserted && e->inserted[i].before == t; i++) {
            int32_t id = s->free_id[--s->n_free];
            s->op_of[id] = e->inserted[i].op;
            e->inserted[i].id = id;
            ids[n] = id;
            running[n] = s->spare_running[i];
            resident[n++] = s->spare_resident[i];
        }
        if (t == hi) break;
        if (d < e->n_deleted && e->deleted[d] == t) {
            s->free_id[s->n_free++] = s->steps[t];
            d++;
            continue;
        }
        ids[n] = s->steps[t];
        running[n] = s->running[t];
        resident[n++] = s->resident[t];
    }
    if (net) {
        memmove(s->steps + hi + net, s->steps + hi, (size_t)(old_n - hi) * sizeof(int32_t));
        memmove(s->running + hi + net, s->running + hi, (size_t)(old_n - hi) * sizeof(double));
        memmove(s->resident + hi + net, s->resident + hi, (size_t)(old_n - hi) * sizeof(double));
    }
    memcpy(s->steps + lo, ids, (size_t)n * sizeof(int32_t));
    memcpy(s->running + lo, running, (size_t)n * sizeof(double));
    memcpy(s->resident + lo, resident, (size_t)n * sizeof(double));
    s->n_steps = old_n + net;
    const int32_t moved = net ? s->n_steps : lo + n;
    for (int32_t t = lo; t < moved; t++) s->place[s->steps[t]] = t;
    for (i = 0; i < e->n_inserted; i++) link_step(s, e->inserted[i].id);
    refresh_blocks(s, first, net ? s->n_steps : last + 1);
}

/* ---- moves ---- */

/* Insert `op` before `before`, and with probability `chance` the makers of dead inputs, up to
 * `*room` ops; the lives of dead inputs that are not made again get longer instead. */
static void add_recompute(State *s, Edit *e, int32_t op, int32_t before, double chance, int *room) {
    const Problem *p = s->p;
    s->op_stamp[op] = s->stamp;
    for (int32_t i = p->in_ptr[op]; i < p->in_ptr[op + 1]; i++) {
        int32_t u = p->in_idx[i], maker = p->producer[u];
        if (s->op_stamp[maker] == s->stamp || !p->recomputable[maker] || *room <= 0) continue;
        if (live_before(s, u, before)) continue;
        if (chance >= 1 || uniform(s) < chance) {
            (*room)--;
            add_recompute(s, e, maker, before, chance, room);
        }
    }
    add_insertion(e, before, op);
}

/* Does anything that stays read what `step` makes, before it is made again? */
static int is_read(const State *s, const Edit *e, int32_t step) {
    const Problem *p = s->p;
    int32_t op = op_at(s, step);
    for (int32_t i = p->out_ptr[op]; i < p->out_ptr[op + 1]; i++) {
        int32_t v = p->out_idx[i];
        int32_t j = first_event(s, v, step) + 1, n = s->event[v].n;
        for (; j < n && !computes(s, v, j); j++)
            if (!is_deleted(e, event_step(s, v, j))) return 1;
        if (j == n && p->is_output[v]) return 1;
    }
    return 0;
}

static int32_t runs_left(const State *s, const Edit *e, int32_t op) {
    int32_t n = s->run[op].n;
    for (int32_t i = 0; i < e->n_deleted; i++) n -= op_at(s, e->deleted[i]) == op;
    return n;
}

/* Delete the step, then the runs that were there only to feed it. */
static void delete_with_feeders(State *s, Edit *e, int32_t step, int depth) {
    const Problem *p = s->p;
    int32_t op = op_at(s, step);
    add_deletion(e, step);
    if (depth > 100 || e->n_deleted > 200) return;
    for (int32_t i = p->in_ptr[op]; i < p->in_ptr[op + 1]; i++) {
        int32_t u = p->in_idx[i];
        int32_t j = first_event(s, u, step) - 1;
        while (j >= 0 && !computes(s, u, j)) j--;
        if (j < 0) continue;
        int32_t feeder = event_step(s, u, j);
        if (is_deleted(e, feeder) || runs_left(s, e, op_at(s, feeder)) < 2) continue;
        if (!is_read(s, e, feeder)) delete_with_feeders(s, e, feeder, depth + 1);
    }
}

/* Compute v again just before event `j` (a read of v), which ends its life before that. */
static void drop_before(State *s, Edit *e, int32_t v, int32_t j, double chance) {
    const Problem *p = s->p;
    int32_t op = p->producer[v], before = event_step(s, v, j);
    s->stamp++;
    /* Nobody read it since it was made: then it is made later, not twice. */
    if (computes(s, v, j - 1)) {
        int32_t last = event_step(s, v, j - 1), unused = 1;
        for (int32_t i = p->out_ptr[op]; i < p->out_ptr[op + 1] && unused; i++) {
            int32_t w = p->out_idx[i];
            int32_t k = first_event(s, w, last) + 1;
            if (k < s->event[w].n && event_step(s, w, k) < before) unused = 0;
        }
        if (unused) add_deletion(e, last);
        else if (!p->recomputable[op]) return;
    }
    int room = 1 << below(s, 7);
    add_recompute(s, e, op, before, chance, &room);
}

static double random_chance(State *s) {
    double x = uniform(s);
    return x < 0.3 ? 0.0 : x < 0.7 ? 1.0 : 0.5;
}

static int move_drop(State *s, Edit *e) {
    const Problem *p = s->p;
    for (int tries = 0; tries < 8; tries++) {
        double x = uniform(s) * s->weight[p->n_values - 1];
        int32_t lo = 0, hi = p->n_values - 1;
        while (lo < hi) {
            int32_t mid = (lo + hi) / 2;
            if (s->weight[mid] <= x) lo = mid + 1;
            else hi = mid;
        }
        int32_t v = lo;
        int32_t n = s->event[v].n;
        if (n < 2) continue;
        int32_t j = 1 + below(s, n - 1);
        if (computes(s, v, j) || event_step(s, v, j) - event_step(s, v, j - 1) < 2) continue;
        if (!p->recomputable[p->producer[v]] && !computes(s, v, j - 1)) continue;
        drop_before(s, e, v, j, random_chance(s));
        return e->n_inserted > 0;
    }
    return 0;
}

static int move_keep(State *s, Edit *e) {
    if (!s->n_repeated) return 0;
    delete_with_feeders(s, e, s->place[s->repeated[below(s, s->n_repeated)]], 0);
    return 1;
}

static int move_shift(State *s, Edit *e) {
    const Problem *p = s->p;
    int32_t step = below(s, s->n_steps), op = op_at(s, step), lo = 0, hi = s->n_steps;
    for (int32_t i = p->in_ptr[op]; i < p->in_ptr[op + 1]; i++) {
        int32_t u = p->in_idx[i];
        int32_t j = first_event(s, u, step) - 1;
        while (!computes(s, u, j)) j--;
        if (event_step(s, u, j) + 1 > lo) lo = event_step(s, u, j) + 1;
    }
    for (int32_t i = p->out_ptr[op]; i < p->out_ptr[op + 1]; i++) {
        int32_t v = p->out_idx[i];
        int32_t j = first_event(s, v, step) + 1;
        if (j < s->event[v].n && !computes(s, v, j) && event_step(s, v, j) < hi)
            hi = event_step(s, v, j);
    }
    if (hi - lo < 2) return 0;
    int32_t to;
    double x = uniform(s);
    if (x < 0.15) to = lo;
    else if (x < 0.35) to = hi;
    else if (x < 0.65) to = lo + below(s, hi - lo + 1);
    else {
        int32_t reach = 2 + (int32_t)(exp(uniform(s) * 4));
        to = step - reach + below(s, 2 * reach + 2);
        if (to < lo) to = lo;
        if (to > hi) to = hi;
    }
    if (to == step || to == step + 1) return 0;
    add_deletion(e, step);
    add_insertion(e, to, op);
    return 1;
}

/* Drop something that is live but idle while `step` runs. */
static int drop_around(State *s, Edit *e, int64_t step) {
    const Problem *p = s->p;
    for (int tries = 0; tries < 24; tries++) {
        double x = uniform(s) * s->weight[p->n_values - 1];
        int32_t lo = 0, hi = p->n_values - 1;
        while (lo < hi) {
            int32_t mid = (lo + hi) / 2;
            if (s->weight[mid] <= x) lo = mid + 1;
            else hi = mid;
        }
        int32_t v = lo;
        int32_t j = first_event(s, v, (int32_t)step);
        if (j == 0 || j == s->event[v].n) continue;
        if (computes(s, v, j) || event_step(s, v, j) <= step) continue;
        if (!p->recomputable[p->producer[v]] && !computes(s, v, j - 1)) continue;
        int32_t before = e->n_inserted;
        drop_before(s, e, v, j, random_chance(s));
        return e->n_inserted > before;
    }
    return 0;
}

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static State *new_state(const Problem *p, const int32_t *steps, int32_t n_steps, double budget, uint64_t seed) {
    State *s = calloc(1, sizeof(State));
    size_t n_ops = (size_t)p->n_ops, n_values = (size_t)p->n_values;
    s->p = p;
    s->rng = seed * 0x2545F4914F6CDD1Dull + 88172645463325252ull;
    s->event = calloc(n_values + 1, sizeof(List));
    s->run = calloc(n_ops + 1, sizeof(List));
    s->op_delta = calloc(n_ops + 1, sizeof(int32_t));
    s->op_stamp = calloc(n_ops + 1, sizeof(uint32_t));
    s->value_stamp = calloc(n_values + 1, sizeof(uint32_t));
    s->touched = calloc(n_values + 1, sizeof(int32_t));
    s->head = calloc(n_values + 1, sizeof(int32_t));
    s->weight = calloc(n_values + 1, sizeof(double));
    double sum = 0;
    for (size_t v = 0; v < n_values; v++) s->weight[v] = sum += p->bytes[v];
    load(s, steps, n_steps, budget);
    return s;
}

static void free_state(State *s) {
    for (int32_t v = 0; v < s->p->n_values; v++) free(s->event[v].at);
    for (int32_t op = 0; op < s->p->n_ops; op++) free(s->run[op].at);
    void *owned[] = {s->event, s->run, s->steps, s->spare, s->op_of, s->place, s->free_id,
                     s->repeated, s->repeated_at, s->running, s->resident, s->spare_running,
                     s->spare_resident, s->block_max, s->value_stamp, s->op_stamp, s->touched,
                     s->head, s->op_delta, s->edit_event, s->merged, s->change, s->weight};
    for (size_t i = 0; i < sizeof(owned) / sizeof(*owned); i++) free(owned[i]);
    free(s);
}

static int32_t copy_ops(const State *s, int32_t *ops) {
    for (int32_t t = 0; t < s->n_steps; t++) ops[t] = op_at(s, t);
    return s->n_steps;
}

/* Anneal from `steps`. Writes the best schedule found to `best` (room for `cap` steps): the
 * cheapest within the budget, or else the one of lowest peak. Returns its length. */
int32_t fxremat_anneal(const Problem *p, const int32_t *steps, int32_t n_steps, double budget,
                       const Effort *effort, uint64_t seed, int32_t *best, int32_t cap, int64_t *stats) {
    State *s = new_state(p, steps, n_steps, budget, seed);
    Edit edit = {0}, *e = &edit;
    const double deadline = now_s() + effort->time_limit_s;
    const double all = effort->shift_weight + effort->drop_weight + effort->keep_weight + effort->swap_weight;
    int32_t n_best = n_steps <= cap ? n_steps : 0;
    memcpy(best, steps, (size_t)n_best * sizeof(int32_t));
    int fits = s->over <= 0;
    double best_cost = s->cost, best_peak = peak(s);
    double temperature = effort->temperature_start, price_of_byte = effort->price_start, pressure = 1;
    if (effort->lower_the_peak) set_budget(s, best_peak * 0.999 - 1);
    int64_t i = 0;
    for (; i < effort->edits; i++) {
        if ((i & 127) == 0) {
            double f = (double)i / (double)effort->edits;
            temperature = effort->temperature_start * pow(effort->temperature_end / effort->temperature_start, f);
            if (f > 0.7 && s->over > 0) pressure *= effort->price_up;
            else if (f < 0.9) pressure = pressure * effort->price_down < 1 ? 1 : pressure * effort->price_down;
            price_of_byte = pressure * effort->price_start * pow(effort->price_end / effort->price_start, f);
            if (now_s() > deadline) break;
        }
        clear(e);
        double x = uniform(s) * all, d_cost, d_over;
        int ok, kind = 0;
        if ((x -= effort->shift_weight) < 0) ok = move_shift(s, e);
        else if ((x -= effort->drop_weight) < 0) ok = move_drop(s, e), kind = 1;
        else if ((x -= effort->keep_weight) < 0) ok = move_keep(s, e), kind = 2;
        else {
            kind = 3;
            ok = move_keep(s, e) && price(s, e, &d_cost, &d_over) && s->worst_at >= 0;
            if (ok) ok = drop_around(s, e, s->worst_at);
        }
        if (!ok || !price(s, e, &d_cost, &d_over)) continue;
        stats[2 * kind]++;
        double up = d_cost + price_of_byte * d_over;
        if (up > 0 && (temperature <= 0 || uniform(s) >= exp(-up / temperature))) continue;
        stats[2 * kind + 1]++;
        apply(s, e, d_cost, d_over);
        if (s->n_steps > cap) continue;
        if (effort->lower_the_peak) {
            if (s->over > 0 && (i & 15)) continue; /* finding the peak is linear: not every time */
            double top = peak(s);
            if (top < best_peak) {
                best_peak = top;
                n_best = copy_ops(s, best);
                set_budget(s, top * 0.999 - 1);
            }
        } else if (s->over <= 0) {
            if (fits && s->cost >= best_cost) continue;
            fits = 1;
            best_cost = s->cost;
            n_best = copy_ops(s, best);
        } else if (!fits && !(i & 15)) {
            double top = peak(s);
            if (top < best_peak) {
                best_peak = top;
                n_best = copy_ops(s, best);
            }
        }
    }
    stats[8] = i;
    free(edit.deleted);
    free(edit.inserted);
    free_state(s);
    return n_best;
}

/* Test hook: random edits priced, applied, and compared with a rebuild; returns the first edit
 * whose price was wrong, or -1. */
int64_t fxremat_self_check(const Problem *p, const int32_t *steps, int32_t n_steps, double budget,
                           uint64_t seed, int64_t edits) {
    State *s = new_state(p, steps, n_steps, budget, seed);
    State *again = new_state(p, steps, n_steps, budget, seed);
    Edit edit = {0}, *e = &edit;
    int32_t *ops = NULL, n;
    int64_t wrong = -1;
    for (int64_t i = 0; i < edits && wrong < 0; i++) {
        clear(e);
        double d_cost, d_over;
        int kind = below(s, 4);
        int ok = kind == 0 ? move_shift(s, e) : kind == 1 ? move_drop(s, e) : move_keep(s, e);
        if (kind == 3 && ok) ok = drop_around(s, e, below(s, s->n_steps));
        if (!ok || !price(s, e, &d_cost, &d_over)) continue;
        if (s->n_steps > 4 * p->n_ops && d_cost > 0) continue;
        apply(s, e, d_cost, d_over);
        n = copy_ops(s, ops = realloc(ops, (size_t)s->n_steps * sizeof(int32_t)));
        load(again, ops, n, budget);
        double apart = fabs(again->cost - s->cost) + fabs(again->over - s->over) + fabs(peak(again) - peak(s));
        for (int32_t t = 0; t < n; t++) apart += fabs(again->resident[t] - s->resident[t]);
        if (apart > 1e-6 * (1 + s->cost) || again->n_repeated != s->n_repeated) wrong = i;
    }
    free(ops);
    free_state(again);
    free(edit.deleted);
    free(edit.inserted);
    free_state(s);
    return wrong;
}
