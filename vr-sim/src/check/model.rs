//! Models for the verdict on what clients saw: one order of all calls must explain it (O6).

use crate::{
    check::sim::Sim,
    cluster::client::{CallOf, Service},
    linearizability::{
        self,
        cluster::{history_of, places_of},
        model::{Model, Scope},
        state_machine::{AskedOf, StateMachineModel, ToldOf},
    },
};

impl<S: Service> Sim<S> {
    /// Requires that one order of all calls explains what clients were told, as if one state
    /// machine of this kind had executed them one at a time.
    ///
    /// The model sees the default [`Context`](vr_core::Context), so this is for services whose
    /// replies depend neither on the time nor on who asks. If the order of the log does not explain
    /// them, another one is searched for: that takes long, and can end without a verdict, which is a
    /// failure, if many calls overlap whose replies say little. Have fewer
    /// [`callers`](Self::callers) then, or say with [`linearizable_by`](Self::linearizable_by) what
    /// can be looked at apart.
    pub fn linearizable(&mut self) -> &mut Self
    where
        S: Clone,
    {
        self.linearizable_by(|_| Scope::Everything)
    }

    /// As [`linearizable`](Self::linearizable); calls without a key in common, as `scope` says,
    /// are looked at apart, each part beginning with a new state machine.
    pub fn linearizable_by(&mut self, scope: fn(&AskedOf<S>) -> Scope) -> &mut Self
    where
        S: Clone,
    {
        let initial = self.made();
        self.model(StateMachineModel::new(initial).with_scope(scope))
    }

    /// Requires that one order of all calls explains what clients were told, as `model` would have
    /// answered: a simpler state machine than the one that is tested, for example.
    pub fn model<M>(&mut self, model: M) -> &mut Self
    where
        M: Model<Operation = AskedOf<S>, Outcome = ToldOf<S>> + 'static,
    {
        self.judge(move |calls| verdict::<S, M>(&model, calls))
    }
}

fn verdict<S, M>(model: &M, calls: &[CallOf<S>]) -> Result<(), String>
where
    S: Service,
    M: Model<Operation = AskedOf<S>, Outcome = ToldOf<S>>,
{
    let history = history_of::<S>(calls).map_err(|error| error.to_string())?;
    let places = places_of::<S>(calls);
    linearizability::check_along(model, &history, &places).problem().map_or(Ok(()), Err)
}
