#include "common.h"
#include "tls.h"
#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { MOST_CONNECTIONS = 64, BUFFER = 64 << 10 };

typedef struct {
    SSL_CTX *context;
    int is_server;
    int connections;
    int sockets[MOST_CONNECTIONS];
    SSL *sessions[MOST_CONNECTIONS];
    // Bytes of a message that is not whole yet.
    size_t part[MOST_CONNECTIONS];
    int in_flight;
    // What comes in, and what goes out for it.
    size_t in, out;
    double seconds;
    cairn_ceiling *result;
    char *buffer;
    int ok;
} side;

static int set_up(side *side) {
    for (int i = 0; i < side->connections; i++) {
        SSL *ssl = side->sessions[i] = SSL_new(side->context);
        if (!ssl || SSL_set_fd(ssl, side->sockets[i]) != 1) return 0;
        // One read for what is there, instead of one for each record's header and one for the rest.
        SSL_set_read_ahead(ssl, 1);
        if ((side->is_server ? SSL_accept(ssl) : SSL_connect(ssl)) != 1) return 0;
        if (fcntl(side->sockets[i], F_SETFL, O_NONBLOCK) != 0) return 0;
    }
    return 1;
}

static int say(side *side, int i, size_t messages) {
    size_t bytes = messages * side->out;
    return bytes <= BUFFER && SSL_write(side->sessions[i], side->buffer, (int)bytes) == (int)bytes;
}

// Answers what is there. 0 when the connection has ended, or failed.
static int serve(side *side, int i) {
    size_t got = side->part[i];
    do {
        int count = SSL_read(side->sessions[i], side->buffer, BUFFER);
        if (count <= 0) {
            if (SSL_get_error(side->sessions[i], count) == SSL_ERROR_WANT_READ) break;
            return 0;
        }
        got += (size_t)count;
    } while (SSL_has_pending(side->sessions[i]));
    size_t whole = got / side->in;
    side->part[i] = got % side->in;
    side->result->operations += whole;
    side->result->bytes += whole * (side->in + side->out);
    return whole == 0 || say(side, i, whole);
}

static void *work(void *argument) {
    side *side = argument;
    int poll = epoll_create1(EPOLL_CLOEXEC), live = side->connections;
    side->buffer = cairn_noise(BUFFER);
    side->ok = poll >= 0 && side->buffer && set_up(side);
    cairn_meter start = cairn_meter_now(RUSAGE_THREAD);
    for (int i = 0; i < side->connections && side->ok; i++) {
        struct epoll_event wish = {.events = EPOLLIN, .data.fd = i};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, side->sockets[i], &wish) != 0) side->ok = 0;
        else if (!side->is_server) side->ok = say(side, i, (size_t)side->in_flight);
        // What the handshake's last read brought along.
        else if (SSL_has_pending(side->sessions[i])) side->ok = serve(side, i);
    }
    double end = start.clock + side->seconds;
    while (side->ok && live > 0 && (side->is_server || cairn_clock() < end)) {
        struct epoll_event events[MOST_CONNECTIONS];
        int count = epoll_wait(poll, events, MOST_CONNECTIONS, 5000);
        if (count == 0 || (count < 0 && errno != EINTR)) side->ok = 0;
        for (int number = 0; number < count; number++) {
            int i = events[number].data.fd;
            if (serve(side, i)) continue;
            // The client's end is the server's.
            if (!side->is_server) side->ok = 0;
            (void)epoll_ctl(poll, EPOLL_CTL_DEL, side->sockets[i], NULL);
            live--;
        }
    }
    cairn_meter_stop(start, RUSAGE_THREAD, side->result);
    for (int i = 0; i < side->connections; i++) {
        // The server ends when it has read all, and so never writes to nobody.
        shutdown(side->sockets[i], side->is_server ? SHUT_RDWR : SHUT_WR);
        SSL_free(side->sessions[i]);
    }
    if (poll >= 0) close(poll);
    free(side->buffer);
    return NULL;
}

int cairn_ceiling_calls(
    int connections, int in_flight, size_t request, size_t answer, double seconds, cairn_ceiling *client, cairn_ceiling *server) {
    memset(client, 0, sizeof *client);
    memset(server, 0, sizeof *server);
    side sides[2] = {
        {.in_flight = in_flight, .in = answer, .out = request, .seconds = seconds, .result = client},
        {.is_server = 1, .in = request, .out = answer, .result = server},
    };
    int ok = connections <= MOST_CONNECTIONS && cairn_tls_contexts(&sides[0].context, &sides[1].context);
    while (ok && sides[0].connections < connections) {
        int pair[2];
        ok = cairn_tls_connected(pair);
        for (int number = 0; number < 2; number++) sides[number].sockets[sides[number].connections++] = pair[number];
    }
    pthread_t thread;
    ok = ok && pthread_create(&thread, NULL, work, &sides[1]) == 0;
    if (ok) {
        work(&sides[0]);
        pthread_join(thread, NULL);
        ok = sides[0].ok && sides[1].ok;
    }
    for (int number = 0; number < 2; number++) {
        for (int i = 0; i < sides[number].connections; i++)
            if (sides[number].sockets[i] >= 0) close(sides[number].sockets[i]);
        SSL_CTX_free(sides[number].context);
    }
    return ok ? 0 : cairn_failed(client, "calls over loopback failed");
}
