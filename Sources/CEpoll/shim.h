#ifndef CAIRN_EPOLL_SHIM_H
#define CAIRN_EPOLL_SHIM_H
// Swift's Glibc module leaves sys/epoll.h out, and hides what glibc only shows under _GNU_SOURCE.
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <stdint.h>

// The anonymous enum's members and the union of epoll_event reach Swift awkwardly, and epoll_event is packed.
#define CAIRN_EPOLLIN 0x001u
#define CAIRN_EPOLLOUT 0x004u
#define CAIRN_EPOLLERR 0x008u
#define CAIRN_EPOLLHUP 0x010u
#define CAIRN_EPOLLRDHUP 0x2000u
#define CAIRN_EPOLLET 0x80000000u

int accept4(int socket, struct sockaddr *restrict address, socklen_t *restrict length, int flags);
static inline int cairn_accept(int socket, struct sockaddr *address, socklen_t *length, int flags) {
    return accept4(socket, address, length, flags);
}
static inline int cairn_epoll_ctl(int epoll, int operation, int descriptor, uint32_t events, uint64_t token) {
    struct epoll_event event = {.events = events, .data = {.u64 = token}};
    return epoll_ctl(epoll, operation, descriptor, &event);
}
static inline uint32_t cairn_epoll_events(const struct epoll_event *event) { return event->events; }
static inline uint64_t cairn_epoll_token(const struct epoll_event *event) { return event->data.u64; }
// An event descriptor that is only ever written: its watcher is edge-triggered.
static inline int cairn_bell(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }
static inline void cairn_ring(int bell) { (void)eventfd_write(bell, 1); }
int pthread_setname_np(pthread_t thread, const char *name);
static inline void cairn_name(pthread_t thread, const char *name) { (void)pthread_setname_np(thread, name); }
#endif
